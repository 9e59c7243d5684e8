//! The attestation document of a Nitro enclave: the CBOR map that the hypervisor
//! signs, as AWS describes it ("Verifying the root of trust").
//!
//! Invariants: every field has AWS' own limit, checked before it is used; every
//! field is there once, and no other.

use std::collections::BTreeMap;

use minicbor::Decoder;
use minicbor::data::Type;
use nautilus_attest_protocol::{Claims, Measurement, Refused, Tcb, TeeKind, UnixMillis};

use crate::certificate::malformed;

/// How this is named in refusals.
pub(super) const WHAT: &str = "Nitro attestation document";

/// Longest module id, in bytes. Genuine ones have 39.
const MAX_MODULE_ID_BYTES: usize = 128;
/// Longest certificate in the bundle, in bytes.
const MAX_CERTIFICATE_BYTES: usize = 1024;
/// Most certificates in the bundle. Genuine bundles have four.
const MAX_BUNDLE_CERTIFICATES: u64 = 8;
/// Longest public key, in bytes.
const MAX_PUBLIC_KEY_BYTES: usize = 1024;
/// Longest user data and longest nonce, in bytes.
const MAX_USER_BYTES: usize = 512;
/// Platform configuration registers have numbers below this.
const REGISTERS: u64 = 32;
/// Bytes of a register under SHA-384, the only digest there is.
const REGISTER_BYTES: usize = 48;
/// Bytes of user data that are report data.
const REPORT_DATA_BYTES: usize = 64;

/// The registers that claims always name: image, kernel, application, role of the
/// parent instance, its id, and signer of the image.
const NAMED_REGISTERS: [u64; 6] = [0, 1, 2, 3, 4, 8];

/// The fields of a document.
#[derive(Default)]
pub(super) struct Document<'a> {
    module_id: &'a str,
    digest: &'a str,
    /// When the hypervisor made it.
    pub(super) timestamp_ms: UnixMillis,
    registers: BTreeMap<u64, &'a [u8]>,
    /// DER of the certificate whose key signed the document.
    pub(super) certificate: &'a [u8],
    /// DER of the authorities above it, the root first.
    pub(super) bundle: Vec<&'a [u8]>,
    public_key: Option<&'a [u8]>,
    user_data: Option<&'a [u8]>,
    nonce: Option<&'a [u8]>,
}

impl<'a> Document<'a> {
    /// Reads the payload of a COSE message.
    pub(super) fn read(payload: &'a [u8]) -> Result<Self, Refused> {
        let mut decoder = Decoder::new(payload);
        let entries = decoder.map().map_err(bad)?;
        let Some(entries) = entries.filter(|entries| *entries <= 16) else {
            return Err(bad("it is not a short map of a length said before"));
        };
        let mut document = Self::default();
        let mut seen = Vec::new();
        for _ in 0..entries {
            let key = decoder.str().map_err(bad)?;
            if seen.contains(&key) {
                return Err(bad(format!("{key:?} is there twice")));
            }
            document.read_field(key, &mut decoder)?;
            seen.push(key);
        }
        if decoder.position() != payload.len() {
            return Err(bad("bytes are left over"));
        }
        let needed = [
            "module_id",
            "digest",
            "timestamp",
            "pcrs",
            "certificate",
            "cabundle",
        ];
        if let Some(missing) = needed.iter().find(|key| !seen.contains(key)) {
            return Err(bad(format!("{missing:?} is missing")));
        }
        if document.digest != "SHA384" {
            return Err(bad("its digest is not SHA384"));
        }
        Ok(document)
    }

    fn read_field(&mut self, key: &str, decoder: &mut Decoder<'a>) -> Result<(), Refused> {
        match key {
            "module_id" => {
                self.module_id = decoder.str().map_err(bad)?;
                check_size("module id", self.module_id.len(), 1, MAX_MODULE_ID_BYTES)?;
            }
            "digest" => self.digest = decoder.str().map_err(bad)?,
            "timestamp" => self.timestamp_ms = decoder.u64().map_err(bad)?,
            "pcrs" => self.registers = read_registers(decoder)?,
            "certificate" => {
                self.certificate = decoder.bytes().map_err(bad)?;
                check_size(
                    "certificate",
                    self.certificate.len(),
                    1,
                    MAX_CERTIFICATE_BYTES,
                )?;
            }
            "cabundle" => self.bundle = read_bundle(decoder)?,
            "public_key" => {
                self.public_key = read_optional(decoder, "public key", MAX_PUBLIC_KEY_BYTES)?;
            }
            "user_data" => {
                self.user_data = read_optional(decoder, "user data", MAX_USER_BYTES)?;
            }
            "nonce" => self.nonce = read_optional(decoder, "nonce", MAX_USER_BYTES)?,
            other => return Err(bad(format!("{other:?} is not one of its fields"))),
        }
        Ok(())
    }

    /// What the document says.
    pub(super) fn claims(&self) -> Result<Claims, Refused> {
        let image = self.register(0);
        Ok(Claims {
            tee: TeeKind::Nitro,
            measurement: Measurement::new(image).map_err(bad)?,
            platform: self.instance()?.to_owned(),
            debug: image.iter().all(|byte| *byte == 0),
            report_data: self.report_data(),
            tcb: Tcb::nothing_to_say(),
            registers: self.claimed_registers(),
        })
    }

    /// User data of exactly 64 bytes is report data; anything else binds nothing,
    /// which 64 zeros say: no hash of ours is that.
    fn report_data(&self) -> [u8; REPORT_DATA_BYTES] {
        self.user_data
            .and_then(|data| data.try_into().ok())
            .unwrap_or([0; REPORT_DATA_BYTES])
    }

    fn register(&self, number: u64) -> &[u8] {
        const ZEROS: [u8; REGISTER_BYTES] = [0; REGISTER_BYTES];
        self.registers.get(&number).copied().unwrap_or(&ZEROS)
    }

    fn claimed_registers(&self) -> BTreeMap<String, Vec<u8>> {
        let set = self.registers.iter();
        let set = set.filter(|(_, value)| value.iter().any(|byte| *byte != 0));
        let numbers = set.map(|(number, _)| *number).chain(NAMED_REGISTERS);
        let mut claimed: BTreeMap<_, _> = numbers
            .map(|number| (format!("pcr{number}"), self.register(number).to_vec()))
            .collect();
        let module_id = Some(self.module_id.as_bytes());
        let fields = [
            ("module_id", module_id),
            ("public_key", self.public_key),
            ("user_data", self.user_data),
            ("nonce", self.nonce),
        ];
        for (name, value) in fields {
            claimed.extend(value.map(|value| (name.to_owned(), value.to_vec())));
        }
        claimed
    }

    /// The parent instance's id without its `i-`: the hex digits between that and
    /// the enclave's own part, as in `i-0bee92034f3d60691-enc01943c5eaab3ad6a`.
    fn instance(&self) -> Result<&'a str, Refused> {
        let instance = self.module_id.strip_prefix("i-");
        let instance = instance.and_then(|rest| rest.split_once("-enc"));
        match instance {
            Some((instance, _)) if is_hex(instance) => Ok(instance),
            _ => Err(bad("its module id names no instance")),
        }
    }
}

fn is_hex(text: &str) -> bool {
    let digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    !text.is_empty() && text.bytes().all(digit)
}

fn read_registers<'a>(decoder: &mut Decoder<'a>) -> Result<BTreeMap<u64, &'a [u8]>, Refused> {
    let entries = decoder.map().map_err(bad)?;
    let Some(entries) = entries.filter(|entries| (1..=REGISTERS).contains(entries)) else {
        return Err(bad(format!("it has 1 to {REGISTERS} registers")));
    };
    let mut registers = BTreeMap::new();
    for _ in 0..entries {
        let number = decoder.u64().map_err(bad)?;
        let value = decoder.bytes().map_err(bad)?;
        check_size("register", value.len(), REGISTER_BYTES, REGISTER_BYTES)?;
        if number >= REGISTERS || registers.insert(number, value).is_some() {
            return Err(bad(format!(
                "register {number} is there twice or past the last"
            )));
        }
    }
    Ok(registers)
}

fn read_bundle<'a>(decoder: &mut Decoder<'a>) -> Result<Vec<&'a [u8]>, Refused> {
    let entries = decoder.array().map_err(bad)?;
    let Some(entries) = entries.filter(|entries| (1..=MAX_BUNDLE_CERTIFICATES).contains(entries))
    else {
        let reason = format!("its bundle has 1 to {MAX_BUNDLE_CERTIFICATES} certificates");
        return Err(bad(reason));
    };
    let mut bundle = Vec::new();
    for _ in 0..entries {
        let certificate = decoder.bytes().map_err(bad)?;
        check_size("certificate", certificate.len(), 1, MAX_CERTIFICATE_BYTES)?;
        bundle.push(certificate);
    }
    Ok(bundle)
}

fn read_optional<'a>(
    decoder: &mut Decoder<'a>,
    name: &'static str,
    limit: usize,
) -> Result<Option<&'a [u8]>, Refused> {
    if decoder.datatype().map_err(bad)? == Type::Null {
        decoder.null().map_err(bad)?;
        return Ok(None);
    }
    let value = decoder.bytes().map_err(bad)?;
    check_size(name, value.len(), 0, limit)?;
    Ok(Some(value))
}

fn check_size(name: &'static str, size: usize, least: usize, limit: usize) -> Result<(), Refused> {
    if size > limit {
        let what = name;
        return Err(Refused::TooLarge { what, size, limit });
    }
    if size < least {
        return Err(bad(format!(
            "its {name} has {size} bytes, {least} is the least"
        )));
    }
    Ok(())
}

pub(super) fn bad(reason: impl std::fmt::Display) -> Refused {
    malformed(WHAT, reason)
}
