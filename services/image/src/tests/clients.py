"""python-glanceclient and openstacksdk, unmodified, against the image service. Arguments: endpoint, directory."""

import hashlib
import io
import os
import sys

import openstack

try:
    from glanceclient import Client, exc
except ImportError:
    Client = None

endpoint, workdir = sys.argv[1], sys.argv[2]


def refuses(kind, word, call, *args, **kwargs):
    try:
        result = call(*args, **kwargs)
        # Lists are generators.
        if hasattr(result, "__next__"):
            list(result)
    except kind as e:
        assert word in str(e), f"{word!r} is not in {e}"
        return
    raise AssertionError(f"{call} was not refused")


def glance():
    alice, bob = (Client("2", endpoint=endpoint, token=t) for t in ("alice", "bob"))
    data = os.urandom(3 << 20)
    image = alice.images.create(
        name="from glanceclient", disk_format="raw", container_format="bare", os_distro="debian", tags=["a"]
    )
    assert image.status == "queued", image
    assert alice.images.data(image.id).wrapped is None
    alice.images.upload(image.id, io.BytesIO(data))
    image = alice.images.get(image.id)
    assert image.status == "active" and image.size == len(data), image
    assert image.os_hash_value == hashlib.sha512(data).hexdigest()
    # The client checks the hash itself.
    assert b"".join(alice.images.data(image.id)) == data
    alice.images.update(image.id, remove_props=["os_distro"], name="renamed", os_version="12")
    image = alice.images.get(image.id)
    assert image.name == "renamed" and image.os_version == "12" and "os_distro" not in image, image
    for i in range(5):
        alice.images.create(name=f"n{i}")
    names = [i.name for i in alice.images.list(page_size=2, sort="name:asc")]
    assert names == ["n0", "n1", "n2", "n3", "n4", "renamed"], names
    assert [i.id for i in alice.images.list(filters={"name": "renamed", "status": "active"})] == [image.id]
    assert len(list(alice.images.list(limit=3))) == 3
    alice.image_tags.update(image.id, "t1")
    assert [i.id for i in alice.images.list(filters={"tag": ["t1"]})] == [image.id]
    alice.image_tags.delete(image.id, "t1")
    alice.image_members.create(image.id, "bbb")
    assert [m.status for m in alice.image_members.list(image.id)] == ["pending"]
    bob.image_members.update(image.id, "bbb", "accepted")
    assert image.id in [i.id for i in bob.images.list()]
    alice.image_members.delete(image.id, "bbb")
    alice.images.deactivate(image.id)
    alice.images.reactivate(image.id)
    assert alice.schemas.get("image").name == "image"
    assert "glance-direct" in alice.images.get_import_info()["import-methods"]["value"]
    refuses(exc.HTTPNotFound, "No image found with ID", bob.images.get, image.id)
    refuses(exc.HTTPConflict, "queued", alice.images.upload, image.id, io.BytesIO(b"x"))
    refuses(exc.HTTPForbidden, "publicize_image", alice.images.update, image.id, visibility="public")
    refuses(exc.HTTPUnauthorized, "authentication", Client("2", endpoint=endpoint, token="old").images.get, image.id)
    liar = alice.images.create(disk_format="qcow2", container_format="bare")
    try:
        alice.images.upload(liar.id, io.BytesIO(b"\0" * (8 << 20)))
        raise AssertionError("a lie was believed")
    except exc.HTTPException as e:
        assert "HTTP 415" in str(e) and "no qcow2 signature" in str(e), e
    assert alice.images.get(liar.id).status == "queued"
    for i in list(alice.images.list()):
        alice.images.delete(i.id)
    refuses(exc.HTTPNotFound, "No image found", alice.images.delete, image.id)


def glance_definitions():
    admin, alice = (Client("2", endpoint=endpoint, token=t) for t in ("admin", "alice"))
    flavor = {"name": "OS::Nova::Flavor", "prefix": "hw:"}
    made = admin.metadefs_namespace.create(namespace="g", visibility="public", resource_type_associations=[flavor])
    assert made.namespace == "g" and made.protected is False, made
    # The client reads, changes and sends back whole things.
    assert admin.metadefs_namespace.update("g", display_name="G").display_name == "G"
    assert admin.metadefs_property.create("g", name="p", title="P", type="integer", minimum=1).title == "P"
    assert admin.metadefs_property.update("g", "p", title="Q").title == "Q"
    admin.metadefs_object.create("g", name="o", properties={"a": {"title": "A", "type": "string"}}, required=["a"])
    assert admin.metadefs_object.update("g", "o", description="d").description == "d"
    # With append=True the client of 2026 fails by itself: it wants to quote a boolean.
    assert len(list(admin.metadefs_tag.create_multiple("g", tags=["u", "v"]))) == 2
    admin.metadefs_tag.create("g", "t")
    assert admin.metadefs_tag.update("g", "v", name="w").name == "w"
    admin.metadefs_resource_type.associate("g", name="OS::Glance::Image", prefix="hw_")
    seen = alice.metadefs_namespace.get("g", resource_type="OS::Nova::Flavor")
    assert list(seen.properties) == ["hw:p"] and seen.objects[0]["required"] == ["hw:a"], seen
    assert sorted(t["name"] for t in seen.tags) == ["t", "u", "w"], seen
    assert [n.namespace for n in alice.metadefs_namespace.list(filters={"resource_types": ["OS::Nova::Flavor"]})] == ["g"]
    assert [p.name for p in alice.metadefs_property.list("g")] == ["p"]
    assert [o.name for o in alice.metadefs_object.list("g")] == ["o"]
    assert sorted(t.name for t in alice.metadefs_tag.list("g")) == ["t", "u", "w"]
    assert len(list(alice.metadefs_resource_type.list())) == 2
    assert len(list(alice.metadefs_resource_type.get("g"))) == 2
    for i in range(5):
        admin.metadefs_namespace.create(namespace=f"g{i}", visibility="public")
    assert len(list(alice.metadefs_namespace.list(page_size=2))) == 6
    refuses(exc.HTTPForbidden, "add_metadef_tag", alice.metadefs_tag.create, "g", "x")
    refuses(exc.HTTPForbidden, "tasks_api_access", alice.tasks.list)
    admin.metadefs_object.delete("g", "o")
    admin.metadefs_property.delete_all("g")
    admin.metadefs_tag.delete_all("g")
    admin.metadefs_resource_type.deassociate("g", "OS::Glance::Image")
    for n in list(admin.metadefs_namespace.list()):
        admin.metadefs_namespace.delete(n.namespace)
    task = admin.tasks.create(type="api_image_import", input={"image_id": "x"})
    assert task.status == "pending" and task.id in [t.id for t in admin.tasks.list()], task
    assert admin.tasks.get(task.id).type == "api_image_import"


def sdk_definitions(admin, alice):
    made = admin.image.create_metadef_namespace(namespace="s", display_name="S")
    # Only what changed is sent, and what is not sent falls back to its default.
    admin.image.update_metadef_namespace(made, display_name="T", visibility="public")
    assert alice.image.get_metadef_namespace("s").display_name == "T"
    admin.image.create_metadef_property("s", name="p", title="P", type="string", enum=["x"])
    assert alice.image.get_metadef_property("p", "s").enum == ["x"]
    assert [p.name for p in alice.image.metadef_properties("s")] == ["p"]
    admin.image.create_metadef_object("s", name="o", description="d")
    assert [o.description for o in alice.image.metadef_objects("s")] == ["d"]
    admin.image.create_metadef_resource_type_association("s", name="OS::Nova::Server")
    assert [a.name for a in alice.image.metadef_resource_type_associations("s")] == ["OS::Nova::Server"]
    assert "OS::Nova::Server" in [t.name for t in alice.image.metadef_resource_types()]
    assert alice.image.get_metadef_namespace_schema().name == "namespace"
    refuses(
        openstack.exceptions.ForbiddenException,
        "add_metadef_namespace",
        alice.image.create_metadef_namespace,
        namespace="mine",
    )
    admin.image.delete_all_metadef_objects("s")
    admin.image.delete_metadef_namespace("s")
    assert list(alice.image.metadef_namespaces()) == []
    task = admin.image.create_task(
        type="import",
        input={"import_from": "http://example.org/", "import_from_format": "raw", "image_properties": {}},
    )
    refuses(openstack.exceptions.ResourceFailure, "failure", admin.image.wait_for_task, task, interval=0.1, wait=20)
    assert "does not fetch" in admin.image.get_task(task).message


def sdk():
    def connect(token):
        return openstack.connection.Connection(
            auth_type="admin_token",
            auth={"token": token, "endpoint": endpoint},
            image_endpoint_override=endpoint,
            region_name="RegionOne",
        )

    alice, bob = connect("alice"), connect("bob")
    path = os.path.join(workdir, "disk.raw")
    data = os.urandom(2 << 20)
    with open(path, "wb") as f:
        f.write(data)
    image = alice.image.create_image(
        name="from sdk", filename=path, disk_format="raw", container_format="bare", wait=True, min_disk=1
    )
    image = alice.image.get_image(image.id)
    assert image.status == "active" and image.size == len(data) and image.min_disk == 1, image
    assert alice.image.find_image("from sdk").id == image.id
    out = os.path.join(workdir, "out.raw")
    alice.image.download_image(image, output=out, stream=True)
    with open(out, "rb") as f:
        assert f.read() == data
    alice.image.update_image(image.id, name="renamed", hw_disk_bus="scsi", visibility="community")
    image = alice.image.get_image(image.id)
    assert image.name == "renamed" and image.hw_disk_bus == "scsi" and image.visibility == "community"
    alice.image.update_image(image.id, visibility="shared")
    alice.image.add_tag(image, "t")
    alice.image.remove_tag(image, "t")
    alice.image.add_member(image, member_id="bbb")
    bob.image.update_member("bbb", image, status="accepted")
    assert [m.status for m in alice.image.members(image)] == ["accepted"]
    assert image.id in [i.id for i in bob.image.images()]
    for i in range(3):
        alice.image.create_image(name=f"s{i}", allow_duplicates=True)
    assert len(list(alice.image.images(limit=2))) == 4
    assert [i.name for i in alice.image.images(sort="name:asc", name="in:s1,s2")] == ["s1", "s2"]
    alice.image.deactivate_image(image.id)
    # The client does not look at the status: it hashes the refusal and finds that it is not the image.
    refuses(openstack.exceptions.SDKException, "", alice.image.download_image, image)
    alice.image.reactivate_image(image.id)
    refuses(openstack.exceptions.NotFoundException, "No image found", bob.image.get_image, "0" * 8 + "-0000" * 3 + "-" + "0" * 12)
    refuses(
        openstack.exceptions.HttpException,
        "no qcow2 signature",
        alice.image.create_image,
        name="liar",
        filename=path,
        disk_format="qcow2",
        container_format="bare",
        wait=True,
        allow_duplicates=True,
    )
    for i in list(alice.image.images()):
        alice.image.delete_image(i.id, ignore_missing=False)
    assert list(alice.image.images()) == []
    sdk_definitions(connect("admin"), alice)


if Client:
    glance()
    glance_definitions()
else:
    print("skipped: python-glanceclient is not installed beside openstacksdk", file=sys.stderr)
sdk()
