"""The unmodified openstacksdk against the service: python sdk.py URL TOKEN."""

import sys

import openstack
from openstack import exceptions

url, token = sys.argv[1:]
cloud = openstack.connect(auth_type="admin_token", endpoint=url, token=token)
net = cloud.network


def refused(kind, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except kind as e:
        return str(e)
    raise AssertionError(f"{call} {args} {kwargs} was not refused")


assert {e.alias for e in net.extensions()} >= {"router", "security-group"}
assert net.find_extension("router").alias == "router"
public = next(net.networks(is_router_external=True))
n = net.create_network(name="sdk", description="from the sdk", mtu=1400)
assert (n.mtu, n.is_admin_state_up, n.is_router_external) == (1400, True, False)
n = net.update_network(n, name="sdk2")
assert net.find_network("sdk2").id == n.id
net.set_tags(n, ["x", "y"])
assert net.get_network(n.id).tags == ["x", "y"]
s = net.create_subnet(network_id=n.id, ip_version=4, cidr="10.0.0.0/24", dns_nameservers=["9.9.9.9"], name="s")
assert s.gateway_ip == "10.0.0.1" and s.is_dhcp_enabled
s = net.update_subnet(s, host_routes=[{"destination": "10.9.0.0/16", "nexthop": "10.0.0.9"}])
ports = [net.create_port(network_id=n.id, name=f"p{i}") for i in range(5)]
p = net.update_port(ports[0], name="web", allowed_address_pairs=[{"ip_address": "10.0.0.99"}])
assert p.allowed_address_pairs[0]["mac_address"] == p.mac_address
assert len(list(net.ports(network_id=n.id, limit=2))) == 6
assert [x.name for x in net.ports(fixed_ips=f"ip_address={p.fixed_ips[0]['ip_address']}")] == ["web"]
g = net.create_security_group(name="web")
rule = net.create_security_group_rule(
    security_group_id=g.id, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22
)
refused(
    exceptions.ConflictException, net.create_security_group_rule, security_group_id=g.id, direction="ingress",
    protocol="tcp", port_range_min=22, port_range_max=22,
)
assert len(net.find_security_group("web").security_group_rules) == 3
net.update_port(p, security_groups=[g.id])
r = net.create_router(name="r", external_gateway_info={"network_id": public.id})
net.add_interface_to_router(r, subnet_id=s.id)
f = net.create_ip(floating_network_id=public.id, port_id=p.id)
assert f.fixed_ip_address == p.fixed_ips[0]["ip_address"] and f.router_id == r.id
assert "floating" in refused(exceptions.ConflictException, net.remove_interface_from_router, r, subnet_id=s.id)
net.add_extra_routes_to_router(r, {"router": {"routes": [{"destination": "10.8.0.0/16", "nexthop": "10.0.0.8"}]}})
net.remove_extra_routes_from_router(r, {"router": {"routes": [{"destination": "10.8.0.0/16", "nexthop": "10.0.0.8"}]}})
f = net.update_ip(f, port_id=None)
assert f.port_id is None
net.delete_ip(f)
net.remove_interface_from_router(r, subnet_id=s.id)
net.delete_router(r)
q = net.get_quota("red", details=True)
assert q.ports["used"] == 6, q
assert net.get_quota_default("red").networks == 100
assert "in use" in refused(exceptions.ConflictException, net.delete_network, n)
refused(exceptions.NotFoundException, net.get_port, "00000000-0000-0000-0000-000000000000")
refused(exceptions.BadRequestException, net.create_network, name="x" * 300)
for x in ports:
    net.delete_port(x)
net.delete_security_group(g)
net.delete_network(n)
assert [x.name for x in net.networks(is_router_external=False)] == []
assert {z.name for z in net.availability_zones()} == {"nova"}
print("sdk ok")
