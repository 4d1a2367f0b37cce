//! Names of what this driver makes. All that stands where others can see it (namespaces, host
//! devices, the host's nft table) starts with `h` and six hex digits of the host id, so that two
//! data planes live side by side on one machine. Names inside the switch namespace need no such
//! prefix: nobody else is in there.

use uuid::Uuid;

/// See the module.
#[derive(Clone, Debug)]
pub struct Names {
    tag: String,
}

impl Names {
    /// Names of the host `host_id`.
    pub fn new(host_id: Uuid) -> Self {
        let hex = host_id.simple().to_string();
        Names {
            tag: hex.chars().take(6).collect(),
        }
    }
    /// `h1a2b3c`: what every visible name starts with.
    pub fn prefix(&self) -> String {
        format!("h{}", self.tag)
    }
    /// Namespace of bridges and taps.
    pub fn switch(&self) -> String {
        format!("h{}-sw", self.tag)
    }
    /// Namespace of a router.
    pub fn router(&self, index: u32) -> String {
        format!("h{}-r{index}", self.tag)
    }
    /// Namespace of a network's responders.
    pub fn service(&self, index: u32) -> String {
        format!("h{}-n{index}", self.tag)
    }
    /// Lab only: namespace that plays the guest of a port.
    pub fn guest(&self, index: u32) -> String {
        format!("h{}-g{index}", self.tag)
    }
    /// The host's veth into an external network.
    pub fn uplink(&self, index: u32) -> String {
        format!("h{}u{index}", self.tag)
    }
    /// The host's nft table.
    pub fn table(&self) -> String {
        format!("haneul-{}", self.tag)
    }
}

/// Bridge of a network.
pub fn bridge(index: u32) -> String {
    format!("hb{index}")
}
/// The bridge's own MAC. Without one it takes on that of a port, and forgets its neighbours with each that comes.
pub fn bridge_mac(index: u32) -> [u8; 6] {
    let [a, b, c, d] = index.to_be_bytes();
    [0x02, 0x68, a, b, c, d]
}
/// VXLAN device of a network.
pub fn vxlan(index: u32) -> String {
    format!("hv{index}")
}
/// Tap (or, in the lab, veth) of a guest port.
pub fn tap(index: u32) -> String {
    format!("ht{index}")
}
/// Switch side of a router's interface.
pub fn router_peer(index: u32) -> String {
    format!("hr{index}")
}
/// Router side of an inner interface.
pub fn router_if(index: u32) -> String {
    format!("hi{index}")
}
/// Router side of the gateway.
pub fn router_gw(index: u32) -> String {
    format!("hg{index}")
}
/// Switch side of a service port: nearly always one per network; one more for each further MAC.
pub fn service_peer(index: u32, nth: usize) -> String {
    if nth == 0 {
        format!("hs{index}")
    } else {
        format!("hs{index}.{nth}")
    }
}
/// Service side of the same.
pub fn service_if(nth: usize) -> String {
    format!("s{nth}")
}
/// Switch side of the host's veth.
pub fn uplink_peer(index: u32) -> String {
    format!("hu{index}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_fit_fifteen_characters() {
        let n = Names::new(Uuid::from_u128(0xabcdef01_0000_0000_0000_000000000000));
        assert_eq!(n.switch(), "habcdef-sw");
        for name in [
            n.uplink(9_999_999),
            bridge(u32::MAX),
            vxlan(u32::MAX),
            tap(u32::MAX),
            router_peer(u32::MAX),
            router_if(u32::MAX),
            router_gw(u32::MAX),
            uplink_peer(u32::MAX),
            service_peer(u32::MAX, 99),
        ] {
            assert!(name.len() <= 15, "{name}");
        }
    }
}
