//! Which protocol a WebSocket of a client's speaks: the names, and who of them needs
//! translating for a kubelet that speaks SPDY alone.

/// Streams of a command, the client able to end its own (KEP-4006).
pub const V5_CHANNEL: &str = "v5.channel.k8s.io";
/// The name of the same streams over SPDY.
pub const V4_OVER_SPDY: &str = "v4.channel.k8s.io";
/// SPDY frames inside WebSocket messages, before the name of what the frames carry.
const TUNNEL_PREFIX: &str = "SPDY/3.1+";
const TUNNEL_SUFFIX: &str = ".k8s.io";

/// The names in a `Sec-WebSocket-Protocol` header.
pub fn requested(header: &str) -> impl Iterator<Item = &str> {
    header
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// The SPDY protocol that a tunnel's name carries: `portforward.k8s.io` of
/// `SPDY/3.1+portforward.k8s.io`.
pub fn tunnelled(name: &str) -> Option<&str> {
    name.strip_prefix(TUNNEL_PREFIX)
        .filter(|inner| inner.ends_with(TUNNEL_SUFFIX))
}

/// The name of the tunnel for a SPDY protocol.
pub fn tunnel_of(spdy_protocol: &str) -> String {
    format!("{TUNNEL_PREFIX}{spdy_protocol}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_among_others() {
        let names: Vec<&str> =
            requested(" v5.channel.k8s.io,, SPDY/3.1+portforward.k8s.io ").collect();
        assert_eq!(names, [V5_CHANNEL, "SPDY/3.1+portforward.k8s.io"]);
        assert_eq!(tunnelled(names[1]), Some("portforward.k8s.io"));
        assert_eq!(tunnelled(names[0]), None);
        assert_eq!(tunnelled("SPDY/3.1+example.com"), None);
        assert_eq!(tunnel_of("portforward.k8s.io"), names[1]);
    }
}
