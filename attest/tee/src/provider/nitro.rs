//! AWS Nitro Enclaves, through the Nitro security module: requests and answers in
//! CBOR, each a map of one entry named for what is asked, or a bare name.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use nautilus_attest_protocol::{Measurement, ReportData};

use super::Identity;
use super::kernel::{Kernel, NSM};

/// The register of the whole image: the measurement.
const IMAGE_REGISTER: u16 = 0;
/// Bytes of a register.
const REGISTER_BYTES: usize = 48;

pub(super) fn look(kernel: &dyn Kernel) -> Result<String, String> {
    if kernel.exists(NSM) {
        Ok(format!("/{NSM}"))
    } else {
        Err(format!("there is no /{NSM}"))
    }
}

/// A document that carries `report_data` as its user data.
pub(super) fn quote(kernel: &dyn Kernel, report_data: &ReportData) -> Result<Vec<u8>, String> {
    document(kernel, report_data, None)
}

/// A document that shows a public key and a nonce besides.
pub(super) fn quote_with_key(
    kernel: &dyn Kernel,
    report_data: &ReportData,
    public_key: &[u8],
    nonce: &[u8],
) -> Result<Vec<u8>, String> {
    document(kernel, report_data, Some((public_key, nonce)))
}

fn document(
    kernel: &dyn Kernel,
    report_data: &ReportData,
    shown: Option<(&[u8], &[u8])>,
) -> Result<Vec<u8>, String> {
    let answer = ask(kernel, "Attestation", |request| {
        let fields = request.map(3)?;
        let fields = fields.str("user_data")?.bytes(report_data)?;
        match shown {
            Some((public_key, nonce)) => {
                let fields = fields.str("nonce")?.bytes(nonce)?;
                fields.str("public_key")?.bytes(public_key)?;
            }
            None => {
                let fields = fields.str("nonce")?.null()?;
                fields.str("public_key")?.null()?;
            }
        }
        Ok(())
    })?;
    let mut fields = Fields::of(&answer, "Attestation")?;
    while let Some(name) = fields.next()? {
        if name == "document" {
            return Ok(fields.value.bytes().map_err(unread)?.to_vec());
        }
        fields.value.skip().map_err(unread)?;
    }
    Err("the NSM's answer holds no document".to_owned())
}

/// What its documents will name.
pub(super) fn identity(kernel: &dyn Kernel) -> Result<Identity, String> {
    let answer = ask(kernel, "DescribePCR", |request| {
        request.map(1)?.str("index")?.u16(IMAGE_REGISTER)?;
        Ok(())
    })?;
    let mut register = None;
    let mut fields = Fields::of(&answer, "DescribePCR")?;
    while let Some(name) = fields.next()? {
        if name == "data" {
            register = Some(fields.value.bytes().map_err(unread)?);
        } else {
            fields.value.skip().map_err(unread)?;
        }
    }
    let register = register.filter(|register| register.len() == REGISTER_BYTES);
    let register = register.ok_or("the NSM describes no PCR0 of SHA-384")?;

    let answer = ask(kernel, "DescribeNSM", |_| Ok(()))?;
    let mut module = None;
    let mut fields = Fields::of(&answer, "DescribeNSM")?;
    while let Some(name) = fields.next()? {
        if name == "module_id" {
            module = Some(fields.value.str().map_err(unread)?);
        } else {
            fields.value.skip().map_err(unread)?;
        }
    }
    let module = module.ok_or("the NSM does not name itself")?;
    // As the verifier has it: the parent instance, `i-0bee92034f3d60691-enc0194…`.
    let instance = module
        .strip_prefix("i-")
        .and_then(|rest| rest.split_once("-enc"))
        .ok_or_else(|| format!("the NSM's name {module:?} names no instance"))?
        .0;
    Ok(Identity {
        measurement: Measurement::new(register).map_err(|error| error.to_string())?,
        platform: instance.to_owned(),
    })
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// Asks `name` with what `fields` writes; a request without fields is its bare name.
fn ask(
    kernel: &dyn Kernel,
    name: &str,
    fields: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written,
) -> Result<Vec<u8>, String> {
    let mut body = Encoder::new(Vec::new());
    let written = fields(&mut body);
    let mut request = Encoder::new(Vec::new());
    let bare = body.writer().is_empty();
    let written = written.and_then(|()| {
        if !bare {
            request.map(1)?;
        }
        request.str(name).map(|_| ())
    });
    assert!(written.is_ok(), "writing CBOR to memory cannot fail");
    let mut request = request.into_writer();
    request.extend_from_slice(body.writer());
    kernel
        .nsm(&request)
        .map_err(|error| format!("/{NSM}: {error}"))
}

/// The fields of an answer.
struct Fields<'a> {
    left: u64,
    value: Decoder<'a>,
}

impl<'a> Fields<'a> {
    /// Those of the answer to `name`, or why there is none.
    fn of(answer: &'a [u8], name: &str) -> Result<Self, String> {
        let mut value = Decoder::new(answer);
        if value.map().map_err(unread)? != Some(1) {
            return Err("the NSM's answer is not a map of one entry".to_owned());
        }
        match value.str().map_err(unread)? {
            "Error" => {
                let reason = value.str().map_err(unread)?;
                Err(format!(
                    "the NSM refused {name}: {}",
                    reason.escape_default()
                ))
            }
            said if said == name && value.datatype().map_err(unread)? == Type::Map => {
                let left = value.map().map_err(unread)?;
                let left = left.ok_or("the NSM's answer has no length")?;
                Ok(Self { left, value })
            }
            other => Err(format!(
                "the NSM answered {} to {name}",
                other.escape_default()
            )),
        }
    }

    /// The next field's name; its value is to be read or skipped.
    fn next(&mut self) -> Result<Option<&'a str>, String> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.value.str().map(Some).map_err(unread)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is for `map_err`")]
fn unread(error: minicbor::decode::Error) -> String {
    format!("the NSM's answer is not as documented: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::stand_in::{MODULE_ID, StandIn};

    #[test]
    fn the_request_has_the_documented_bytes() {
        let kernel = StandIn::with_nsm();
        quote(&kernel, &[7; 64]).unwrap();
        // {"Attestation": {"user_data": h'07…', "nonce": null, "public_key": null}}
        let expected = [
            &b"\xa1\x6bAttestation\xa3\x69user_data\x58\x40"[..],
            &[7; 64],
            b"\x65nonce\xf6\x6apublic_key\xf6",
        ]
        .concat();
        assert_eq!(kernel.last_nsm_request(), expected);
    }

    #[test]
    fn a_document_for_contracts_shows_the_key_and_the_nonce() {
        let kernel = StandIn::with_nsm();
        quote_with_key(&kernel, &[7; 64], &[8; 32], &[9; 16]).unwrap();
        let expected = [
            &b"\xa1\x6bAttestation\xa3\x69user_data\x58\x40"[..],
            &[7; 64],
            b"\x65nonce\x50",
            &[9; 16],
            b"\x6apublic_key\x58\x20",
            &[8; 32],
        ]
        .concat();
        assert_eq!(kernel.last_nsm_request(), expected);
    }

    #[test]
    fn it_knows_its_image_and_its_instance() {
        let identity = identity(&StandIn::with_nsm()).unwrap();
        assert_eq!(identity.measurement.as_bytes(), [0xa0; 48]);
        assert_eq!(identity.platform, "0bee92034f3d60691");
        assert!(MODULE_ID.contains(&identity.platform));
    }

    #[test]
    fn an_error_of_the_module_is_told() {
        let kernel = StandIn::with_nsm();
        kernel.refuse(true);
        let error = quote(&kernel, &[7; 64]).unwrap_err();
        assert_eq!(error, "the NSM refused Attestation: InternalError");
    }

    #[test]
    fn answers_cut_anywhere_are_refused() {
        let kernel = StandIn::with_nsm();
        let whole = ask(&kernel, "DescribeNSM", |_| Ok(())).unwrap();
        for length in 0..whole.len() {
            let read = Fields::of(&whole[..length], "DescribeNSM").and_then(|mut fields| {
                while fields.next()?.is_some() {
                    fields.value.skip().map_err(unread)?;
                }
                Ok(())
            });
            assert!(read.is_err(), "{length} bytes were read as an answer");
        }
    }
}
