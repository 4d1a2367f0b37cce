"""One gabbi file of OpenStack's placement against a running cloud.

    run.py ADDRESS PASSWORD FILE

The file is not changed. What it needs that a cloud has not by itself is done here: the providers that its fixture
names are built through the API, and whom its x-auth-token and x-roles mean becomes a real user of the cloud with
those roles. The files expect Placement at the root of its address, so this also is the proxy that mounts it there:
/placement is added to paths and taken off links and the Location header. Prints one JSON object.
"""

import http.client
import json
import os
import sys
import tempfile
import unittest
import uuid
from urllib.parse import quote

from gabbi import driver
from gabbi import fixture

ADDRESS, PASSWORD, FILE = sys.argv[1:4]
HOP = {"connection", "transfer-encoding", "content-length", "date"}


def send(method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(ADDRESS, timeout=30)
    connection.request(method, path, body=body, headers=headers or {})
    answer = connection.getresponse()
    text = answer.read()
    record(method, path, body, answer, text)
    return answer.status, answer.getheaders(), text


def record(method, path, request, answer, text):
    """Puts the exchange on record, as tools/testkit does (record.rs)."""
    directory = os.environ.get("HANEUL_TEST_RECORD")
    if not directory:
        return

    def parsed(bytes_):
        try:
            return json.loads(bytes_)
        except (TypeError, ValueError):
            return None

    version = (answer.getheader("openstack-api-version") or "").split()
    line = {
        "method": method,
        "path": path,
        "request": parsed(request),
        "status": answer.status,
        "version": version[1] if len(version) > 1 else None,
        "answer": parsed(text),
    }
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "gabbi-%d.jsonl" % os.getpid()), "a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


class Cloud:
    """Users of the cloud, by what a file's headers say of them."""

    def __init__(self):
        self.tokens = {}
        self.admin = None

    def login(self, name, password, scope):
        user = {"name": name, "domain": {"id": "default"}, "password": password}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        status, headers, text = send(
            "POST", "/identity/v3/auth/tokens", json.dumps(body), {"content-type": "application/json"}
        )
        assert status == 201, text
        return dict((k.lower(), v) for k, v in headers)["x-subject-token"]

    def start(self):
        self.admin = self.login("admin", PASSWORD, {"project": {"name": "admin", "domain": {"id": "default"}}})
        self.roles = {r["name"]: r["id"] for r in self.ask("GET", "/identity/v3/roles")["roles"]}

    def ask(self, method, path, body=None, version="1.39"):
        headers = {
            "x-auth-token": self.admin,
            "content-type": "application/json",
            "openstack-api-version": "placement " + version,
        }
        status, _, text = send(method, path, None if body is None else json.dumps(body), headers)
        assert status < 300, (method, path, body, status, text)
        return json.loads(text) if text else None

    def project(self):
        made = self.ask("POST", "/identity/v3/projects", {"project": {"name": uuid.uuid4().hex}})
        return made["project"]["id"]

    def token(self, who, roles, project, system):
        """A token of somebody with exactly these roles there."""
        known = self.tokens.get((who, roles, project, system))
        if known:
            return known
        name = "%s-%s" % (who, uuid.uuid4().hex)
        user = self.ask("POST", "/identity/v3/users", {"user": {"name": name, "password": "gabbi"}})["user"]["id"]
        if not system and project not in PROJECTS:
            # A name that stands for no project of the fixture: any will do.
            PROJECTS.append(project)
            REAL[project] = self.project()
        where = "/identity/v3/system" if system else "/identity/v3/projects/" + REAL.get(project, project)
        # Without any role nobody gets a token: one that no rule knows.
        for role in roles or ("gabbi",):
            if role not in self.roles:
                made = self.ask("POST", "/identity/v3/roles", {"role": {"name": role}})
                self.roles[role] = made["role"]["id"]
            self.ask("PUT", "%s/users/%s/roles/%s" % (where, user, self.roles[role]))
        scope = {"system": {"all": True}} if system else {"project": {"id": REAL.get(project, project)}}
        token = self.login(name, "gabbi", scope)
        self.tokens[(who, roles, project, system)] = token
        return token


CLOUD = Cloud()
# Projects that the fixture made, and what others stand for.
PROJECTS = []
REAL = {}


def proxy(environ, start_response):
    headers = {}
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            headers[name[5:].replace("_", "-").lower()] = value
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.replace("_", "-").lower()] = environ[name]
    headers.pop("host", None)
    roles = headers.pop("x-roles", None)
    project = headers.pop("x-project-id", None)
    system = headers.pop("openstack-system-scope", None)
    if "x-auth-token" in headers:
        who, _, own = headers["x-auth-token"].partition(":")
        given = tuple(roles.split(",")) if roles else (("admin",) if who == "admin" else ())
        headers["x-auth-token"] = CLOUD.token(who, given, project or own or who, bool(system))
    path = "/placement" + quote(environ["PATH_INFO"])
    if environ.get("QUERY_STRING"):
        path += "?" + environ["QUERY_STRING"]
    body = environ["wsgi.input"].read() or None
    status, answered, text = send(environ["REQUEST_METHOD"], path, body, headers)
    out = []
    for name, value in answered:
        if name.lower() == "location":
            value = value.replace("http://%s/placement" % ADDRESS, "http://" + environ["HTTP_HOST"])
        if name.lower() not in HOP:
            out.append((name, value))
    text = text.replace(b'"/placement/', b'"/')
    start_response("%d %s" % (status, http.client.responses.get(status, "")), out)
    return [text]


# What the fixtures build.


def provider(name, aggregates=(), parent=None, uuid_=None, env=None, traits=(), **inventories):
    """A provider with all that it has. Inventories: a total, or a total and further fields."""
    body = {"name": name, "uuid": uuid_ or str(uuid.uuid4())}
    if parent:
        body["parent_provider_uuid"] = parent
    made = CLOUD.ask("POST", "/placement/resource_providers", body)
    url, generation = "/placement/resource_providers/" + made["uuid"], made["generation"]
    for class_ in inventories:
        if class_.startswith("CUSTOM_"):
            CLOUD.ask("PUT", "/placement/resource_classes/" + class_)
    # One by one, for the files know the generation.
    for class_, have in inventories.items():
        total, more = have if isinstance(have, tuple) else (have, {})
        body = {"resource_class": class_, "total": total, "max_unit": total, **more}
        generation = CLOUD.ask("POST", url + "/inventories", body)["resource_provider_generation"]
    if aggregates:
        body = {"resource_provider_generation": generation, "aggregates": list(aggregates)}
        generation = CLOUD.ask("PUT", url + "/aggregates", body)["resource_provider_generation"]
    if traits:
        for name in traits:
            if name.startswith("CUSTOM_"):
                CLOUD.ask("PUT", "/placement/traits/" + name)
        CLOUD.ask("PUT", url + "/traits", {"resource_provider_generation": generation, "traits": list(traits)})
    if env:
        os.environ[env] = made["uuid"]
    return made["uuid"]


def hold(provider_, project, user, **amounts):
    """A new consumer that holds so much, of before the time of types."""
    consumer = str(uuid.uuid4())
    body = {
        "allocations": {provider_: {"resources": amounts}},
        "project_id": project,
        "user_id": user,
        "consumer_generation": None,
    }
    CLOUD.ask("PUT", "/placement/allocations/" + consumer, body, "1.37")
    return consumer


SHARES = "MISC_SHARES_VIA_AGGREGATE"


def new(*names):
    ids = [str(uuid.uuid4()) for _ in names]
    os.environ.update(zip(names, ids))
    return ids


def plain():
    new("RP_UUID", "RP_NAME", "RP_UUID1", "RP_NAME1", "RP_UUID2", "RP_NAME2", "USER_ID", "USER_ID_ALT")
    new("INSTANCE_UUID", "MIGRATION_UUID", "CONSUMER_UUID", "PARENT_PROVIDER_UUID", "ALT_PARENT_PROVIDER_UUID")
    os.environ["CUSTOM_RES_CLASS"] = "CUSTOM_IRON_NFV"
    os.environ["CUSTOM_RES_CLASS1"] = "CUSTOM_IRON_NFV1"
    os.environ["CUSTOM_RES_CLASS2"] = "CUSTOM_IRON_NFV2"
    CLOUD.start()
    for name in ("PROJECT_ID", "ADMIN_PROJECT_ID", "SERVICE_PROJECT_ID", "PROJECT_ID_ALT"):
        os.environ[name] = CLOUD.project()
        PROJECTS.append(os.environ[name])


def allocations():
    env = os.environ
    new("ALT_USER_ID", "ALT_RP_UUID", "ALT_RP_NAME")
    rp = provider(
        env["RP_NAME"],
        uuid_=env["RP_UUID"],
        DISK_GB=(2048, {"step_size": 10, "min_unit": 10, "max_unit": 1000}),
        VCPU=10,
    )
    env["CONSUMER_0"] = hold(rp, env["PROJECT_ID"], env["USER_ID"], DISK_GB=1000)
    env["CONSUMER_ID"] = hold(rp, env["PROJECT_ID"], env["USER_ID"], VCPU=6)
    env["ALT_CONSUMER_ID"] = hold(rp, env["PROJECT_ID"], env["ALT_USER_ID"], DISK_GB=20, VCPU=1)


def shared_storage():
    (agg,) = new("AGG_UUID")
    host = {"VCPU": (24, {"allocation_ratio": 16.0}), "MEMORY_MB": (128 * 1024, {"allocation_ratio": 1.5})}
    disk = {"DISK_GB": (2000, {"reserved": 100})}
    cn1 = provider("cn1", [agg], env="CN1_UUID", traits=["HW_CPU_X86_SSE", "HW_CPU_X86_SSE2"], **host)
    cn2 = provider("cn2", [agg], env="CN2_UUID", **host, **disk)
    for name in ("ss", "ss2"):
        provider(name, [agg], env=name.upper() + "_UUID", traits=[SHARES], **disk)
    for i, cn in ((1, cn1), (2, cn2)):
        for j in (1, 2):
            numa = provider("numa%d_%d" % (i, j), parent=cn, env="NUMA%d_%d_UUID" % (i, j))
            provider("pf%d_%d" % (i, j), parent=numa, env="PF%d_%d_UUID" % (i, j), SRIOV_NET_VF=8)


def numa_aggregates():
    a, b, c = new("AGGA_UUID", "AGGB_UUID", "AGGC_UUID")
    cn1 = provider("cn1", [a], env="CN1_UUID")
    cn2 = provider("cn2", [a, b], env="CN2_UUID")
    for name, agg in (("ss1", a), ("ss2", c)):
        provider(name, [agg], env=name.upper() + "_UUID", traits=[SHARES], DISK_GB=(2000, {"reserved": 100}))
    for i, j, cn in ((1, 1, cn1), (1, 2, cn1), (2, 1, cn2), (2, 2, cn2)):
        provider(
            "numa%d_%d" % (i, j),
            [c] if (i, j) == (1, 1) else [],
            parent=cn,
            env="NUMA%d_%d_UUID" % (i, j),
            VCPU=(24, {"allocation_ratio": 16.0}),
        )


def numa_network(parent1=None, parent2=None):
    (agg,) = new("AGGA_UUID")
    provider("ss1", [agg], env="SS1_UUID", traits=[SHARES], DISK_GB=2000)
    cn1 = provider("cn1", [agg], parent=parent1, env="CN1_UUID", traits=["COMPUTE_VOLUME_MULTI_ATTACH"])
    memory = {"MEMORY_MB": (2048, {"min_unit": 512, "step_size": 256})}
    numa0 = provider("numa0", parent=cn1, env="NUMA0_UUID", traits=["HW_NUMA_ROOT"], VCPU=4, **memory)
    memory = {"MEMORY_MB": (2048, {"min_unit": 256, "max_unit": 1024})}
    traits = ["HW_NUMA_ROOT", "CUSTOM_FOO"]
    numa1 = provider("numa1", parent=cn1, env="NUMA1_UUID", traits=traits, VCPU=4, **memory)
    hold(numa0, "numa-project", "numa-user", VCPU=2)
    provider("fpga0", parent=numa0, env="FPGA0_UUID", FPGA=1)
    provider("pgpu0", parent=numa0, env="PGPU0_UUID", VGPU=8)
    for i in (0, 1):
        provider("fpga1_%d" % i, parent=numa1, env="FPGA1_%d_UUID" % i, FPGA=1)
    agent = provider("sriov_agent", parent=cn1, env="SRIOV_AGENT_UUID", traits=["CUSTOM_VNIC_TYPE_DIRECT"])
    for i in (1, 2):
        bandwidth = {"NET_BW_EGR_KILOBIT_PER_SEC": 10000 * i}
        provider("esn%d" % i, parent=agent, env="ESN%d_UUID" % i, traits=["CUSTOM_PHYSNET%d" % i], **bandwidth)
    agent = provider("ovs_agent", parent=cn1, env="OVS_AGENT_UUID", traits=["CUSTOM_VNIC_TYPE_NORMAL"])
    bandwidth = {"NET_BW_EGR_KILOBIT_PER_SEC": 1000}
    provider("br_int", parent=agent, env="BR_INT_UUID", traits=["CUSTOM_PHYSNET0"], **bandwidth)
    memory = {"MEMORY_MB": (2048, {"min_unit": 1024, "step_size": 128})}
    cn2 = provider(
        "cn2", [agg], parent=parent2, env="CN2_UUID", traits=["CUSTOM_FOO"], VCPU=8, DISK_GB=1000, **memory
    )
    hold(cn2, "numa-project", "numa-user", VCPU=3)
    for i, functions in ((1, [(1, 4), (2, 4)]), (2, [(1, 2), (2, 2), (1, 2), (2, 2)]), (3, [(1, 8)])):
        nic = provider("nic%d" % i, parent=cn2, env="NIC%d_UUID" % i, traits=["CUSTOM_HW_NIC_ROOT"])
        for j, (net, vfs) in enumerate(functions, 1):
            name = "pf%d_%d" % (i, j)
            env = name.upper() + "_UUID"
            provider(name, parent=nic, env=env, traits=["CUSTOM_PHYSNET%d" % net], CUSTOM_VF=vfs)


def deep_numa_network():
    top = provider("gp1")
    numa_network(provider("p1", parent=top), provider("p2", parent=top))


def local_storage():
    new("AGGA_UUID", "AGGB_UUID", "AGGC_UUID")
    for i in (1, 2, 3):
        provider("cn%d" % i, env="CN%d_UUID" % i, VCPU=24, MEMORY_MB=128 * 1024, DISK_GB=2000)


def granular():
    a, b, c = new("AGGA", "AGGB", "AGGC")
    both = {"VCPU": 8, "MEMORY_MB": 4096}
    net = {"SRIOV_NET_VF": 8, "CUSTOM_NET_MBPS": 4000}
    traits = ["HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "HW_GPU_API_DXVA", "HW_NIC_DCB_PFC", "CUSTOM_FOO"]
    provider("cn_left", [a], env="CN_LEFT", traits=traits, **both, DISK_GB=500, VGPU=8, **net)
    traits = ["HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "HW_CPU_X86_SSE", "HW_NIC_ACCEL_TLS"]
    provider("cn_middle", [a, b], env="CN_MIDDLE", traits=traits, **both, **net)
    traits = ["HW_CPU_X86_MMX", "HW_GPU_API_DXVA", "CUSTOM_DISK_SSD"]
    provider("cn_right", [b, c], env="CN_RIGHT", traits=traits, **both, DISK_GB=500, VGPU=(8, {"max_unit": 2}))
    provider("shr_disk_1", [a], env="SHR_DISK_1", traits=[SHARES, "CUSTOM_DISK_SSD"], DISK_GB=1000)
    provider("shr_disk_2", [a, b], env="SHR_DISK_2", traits=[SHARES], DISK_GB=1000)
    provider("shr_net", [c], env="SHR_NET", traits=[SHARES], SRIOV_NET_VF=16, CUSTOM_NET_MBPS=40000)


def qos_segments():
    direct = ["CUSTOM_VNIC_TYPE_" + t for t in ("DIRECT", "DIRECT_PHYSICAL", "MACVTAP")]
    normal = ["CUSTOM_VNIC_TYPE_NORMAL"]

    def bandwidth(n):
        return {"NET_BW_%s_KILOBIT_PER_SEC" % d: n for d in ("EGR", "IGR")}

    for i, (nets, bridge, card) in enumerate(
        (
            (["OTHER"], 5000, 10000),
            (["MSN_S1"], 5000, 10000),
            (["MSN_S2"], 5000, 10000),
            (["MSN_S1", "MSN_S2"], 1000, 1000),
        )
    ):
        host = "compute%d" % i
        root = provider(host, env=host, VCPU=8, MEMORY_MB=4096, DISK_GB=500)
        packets = {"NET_PACKET_RATE_KILOPACKET_PER_SEC": 1000}
        name = host + ":Open vSwitch agent"
        ovs = provider(name, parent=root, env=host + ":ovs_agent", traits=normal, **packets)
        name = host + ":NIC Switch agent"
        sriov = provider(name, parent=root, env=host + ":sriov_agent", traits=direct)
        for j, net in enumerate(nets):
            physnet = ["CUSTOM_PHYSNET_" + net]
            suffix = "" if j == 0 else "2"
            name = "%s:Open vSwitch agent:br-ex%s" % (host, suffix)
            provider(name, parent=ovs, env="%s:br_ex%s" % (host, suffix), traits=normal + physnet, **bandwidth(bridge))
            name = "%s:NIC Switch agent:enp129s0f%d" % (host, j)
            provider(name, parent=sriov, env="%s:pf%d" % (host, j), traits=direct + physnet, **bandwidth(card))


def made(build):
    class Made(fixture.GabbiFixture):
        def start_fixture(self):
            plain()
            build()

    return Made


class Fixtures:
    """By the names that the files use. Policies come with the cloud's configuration."""

    APIFixture = made(lambda: None)
    OpenPolicyFixture = APIFixture
    SecureRBACPolicyFixture = APIFixture
    LegacyRBACPolicyFixture = APIFixture
    CORSFixture = APIFixture
    AllocationFixture = made(allocations)
    SharedStorageFixture = made(shared_storage)
    NUMAAggregateFixture = made(numa_aggregates)
    NUMANetworkFixture = made(numa_network)
    DeepNUMANetworkFixture = made(deep_numa_network)
    NonSharedStorageFixture = made(local_storage)
    GranularFixture = made(granular)
    NeutronQoSMultiSegmentFixture = made(qos_segments)


class Result(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.rows = []

    def row(self, test, outcome, why=""):
        name = getattr(test, "test_data", {}).get("name") or str(test)
        self.rows.append({"name": name, "outcome": outcome, "why": why})

    def addSuccess(self, test):
        self.row(test, "passed")

    def addFailure(self, test, err):
        self.row(test, "failed", str(err[1]))

    addError = addFailure

    def addSkip(self, test, reason):
        self.row(test, "skipped", reason)

    def addExpectedFailure(self, test, err):
        self.row(test, "expected", str(err[1]))

    def addUnexpectedSuccess(self, test):
        self.row(test, "unexpected")


def main():
    with tempfile.TemporaryDirectory() as directory:
        os.symlink(os.path.abspath(FILE), os.path.join(directory, os.path.basename(FILE).replace("_", "-")))
        tests = driver.build_tests(
            directory,
            unittest.TestLoader(),
            intercept=lambda: proxy,
            fixture_module=Fixtures,
            test_loader_name="gabbi",
        )
        result = Result()
        tests.run(result)
    print(json.dumps({"tests": result.rows}))


main()
