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
    assert alice.images.get_import_info()["import-methods"]["value"] == []
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


if Client:
    glance()
else:
    print("skipped: python-glanceclient is not installed beside openstacksdk", file=sys.stderr)
sdk()
