//! Addresses and networks. Addresses with zones and IPv4 in IPv6 are refused, as the
//! reference does.

use std::net::IpAddr;

use super::{Context, ONE, Outcome, PARSE, Row, arg, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Opaque, Value};

const TWICE: Cost = Cost::Walk {
    of: 0,
    times: 2,
    sized: false,
};

pub(super) const ROWS: &[Row] = &[
    ("ip", "(string) -> IP", PARSE, ip),
    ("ip", "CIDR.() -> IP", ONE, address_of),
    ("isIP", "(string) -> bool", PARSE, is_ip),
    ("ip.isCanonical", "(string) -> bool", TWICE, is_canonical),
    ("family", "IP.() -> int", ONE, family),
    ("isUnspecified", "IP.() -> bool", ONE, is_unspecified),
    ("isLoopback", "IP.() -> bool", ONE, is_loopback),
    (
        "isLinkLocalMulticast",
        "IP.() -> bool",
        ONE,
        is_link_local_multicast,
    ),
    (
        "isLinkLocalUnicast",
        "IP.() -> bool",
        ONE,
        is_link_local_unicast,
    ),
    ("isGlobalUnicast", "IP.() -> bool", ONE, is_global_unicast),
    ("cidr", "(string) -> CIDR", PARSE, cidr),
    ("isCIDR", "(string) -> bool", PARSE, is_cidr),
    (
        "containsIP",
        "CIDR.(string) -> bool",
        Cost::Within {
            cidr: false,
            text: true,
        },
        contains_ip,
    ),
    (
        "containsIP",
        "CIDR.(IP) -> bool",
        Cost::Within {
            cidr: false,
            text: false,
        },
        contains_ip,
    ),
    (
        "containsCIDR",
        "CIDR.(string) -> bool",
        Cost::Within {
            cidr: true,
            text: true,
        },
        contains_cidr,
    ),
    (
        "containsCIDR",
        "CIDR.(CIDR) -> bool",
        Cost::Within {
            cidr: true,
            text: false,
        },
        contains_cidr,
    ),
    ("prefixLength", "CIDR.() -> int", ONE, prefix_length),
    ("masked", "CIDR.() -> CIDR", ONE, masked),
];

fn parse_ip(raw: &str) -> Result<IpAddr, EvalError> {
    if let Some((address, zone)) = raw.split_once('%')
        && address.parse::<std::net::Ipv6Addr>().is_ok()
        && !zone.is_empty()
    {
        return Err(EvalError::failed(format!(
            "IP address {raw:?} with zone value is not allowed"
        )));
    }
    let address: IpAddr = raw.parse().map_err(|_| {
        EvalError::failed(format!(
            "IP Address {raw:?} parse error during conversion from string: ParseAddr({raw:?}): unable to parse IP"
        ))
    })?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(EvalError::failed(format!(
            "IPv4-mapped IPv6 address {raw:?} is not allowed"
        ))),
        other => Ok(other),
    }
}

fn parse_cidr(raw: &str) -> Result<(IpAddr, u8), EvalError> {
    let wrong = |why: &str| {
        EvalError::failed(format!(
            "network address parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix({raw:?}): {why}"
        ))
    };
    let (address, bits) = raw.rsplit_once('/').ok_or_else(|| wrong("no '/'"))?;
    let address: IpAddr = address.parse().map_err(|_| wrong("unable to parse IP"))?;
    let plain = !bits.is_empty()
        && bits.bytes().all(|digit| digit.is_ascii_digit())
        && (bits == "0" || !bits.starts_with('0'));
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits
        .parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| wrong(&format!("bad bits after slash: {bits:?}")))?;
    if bits > most {
        return Err(wrong("prefix length out of range"));
    }
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err(EvalError::failed(format!(
            "network address parse error during conversion from string: IPv4-mapped IPv6 address {raw:?} is not allowed"
        ))),
        other => Ok((other, bits)),
    }
}

fn ip_value<'a>(address: IpAddr) -> Value<'a> {
    Value::Opaque(Opaque::Ip(address))
}

fn ip_arg(args: &[Value<'_>], at: usize) -> Result<IpAddr, EvalError> {
    match args.get(at) {
        Some(Value::Opaque(Opaque::Ip(address))) => Ok(*address),
        Some(Value::String(text)) => parse_ip(text),
        _ => Err(EvalError::no_such_overload()),
    }
}

fn cidr_arg(args: &[Value<'_>], at: usize) -> Result<(IpAddr, u8), EvalError> {
    match args.get(at) {
        Some(Value::Opaque(Opaque::Cidr(address, bits))) => Ok((*address, *bits)),
        Some(Value::String(text)) => parse_cidr(text),
        _ => Err(EvalError::no_such_overload()),
    }
}

/// The address with all bits after the prefix cleared.
fn mask(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(bits))
                .unwrap_or_default();
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(bits))
                .unwrap_or_default();
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

fn ip<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    parse_ip(text(args, 0)?).map(ip_value)
}

fn address_of<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(ip_value(cidr_arg(args, 0)?.0))
}

fn is_ip<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(parse_ip(text(args, 0)?).is_ok()))
}

fn is_canonical<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let raw = text(args, 0)?;
    Ok(Value::Bool(parse_ip(raw)?.to_string() == raw))
}

fn family<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Int(if ip_arg(args, 0)?.is_ipv4() { 4 } else { 6 }))
}

fn is_unspecified<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(ip_arg(args, 0)?.is_unspecified()))
}

fn is_loopback<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(ip_arg(args, 0)?.is_loopback()))
}

fn link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn link_local_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_multicast<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(link_local_multicast(ip_arg(args, 0)?)))
}

fn is_link_local_unicast<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(link_local_unicast(ip_arg(args, 0)?)))
}

fn is_global_unicast<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let address = ip_arg(args, 0)?;
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    Ok(Value::Bool(
        !broadcast
            && !address.is_unspecified()
            && !address.is_loopback()
            && !address.is_multicast()
            && !link_local_unicast(address),
    ))
}

fn cidr<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let (address, bits) = parse_cidr(text(args, 0)?)?;
    Ok(Value::Opaque(Opaque::Cidr(address, bits)))
}

fn is_cidr<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Bool(parse_cidr(text(args, 0)?).is_ok()))
}

fn contains_ip<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let (network, bits) = cidr_arg(args, 0)?;
    let address = ip_arg(args, 1)?;
    let inside =
        network.is_ipv4() == address.is_ipv4() && mask(network, bits) == mask(address, bits);
    Ok(Value::Bool(inside))
}

fn contains_cidr<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    let (outer, outer_bits) = cidr_arg(args, 0)?;
    let (inner, inner_bits) = cidr_arg(args, 1)?;
    let inside = outer.is_ipv4() == inner.is_ipv4()
        && outer_bits <= inner_bits
        && mask(outer, outer_bits) == mask(inner, outer_bits);
    Ok(Value::Bool(inside))
}

fn prefix_length<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    Ok(Value::Int(cidr_arg(args, 0)?.1.into()))
}

fn masked<'a>(args: &[Value<'a>], _: &mut Context<'_>) -> Outcome<'a> {
    match arg(args, 0)? {
        Value::Opaque(Opaque::Cidr(address, bits)) => {
            Ok(Value::Opaque(Opaque::Cidr(mask(*address, *bits), *bits)))
        }
        _ => Err(EvalError::no_such_overload()),
    }
}
