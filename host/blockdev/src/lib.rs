//! Block devices of guests on this host: the image cache and root disks, as files for now.
