//! How a command ended, as kubelets say it over SPDY and clients hear it over a
//! WebSocket: a `Status` either way, in other words.

use serde_json::{Value, json};

/// The reason of a command that ended with another code than 0.
const NON_ZERO: &str = "NonZeroExitCode";
/// The cause that holds the code.
const EXIT_CODE: &str = "ExitCode";

/// The client's status for what stood in the kubelet's error stream.
pub(super) fn status(said: &[u8]) -> Value {
    if said.is_empty() {
        return json!({ "metadata": {}, "status": "Success" });
    }
    let Ok(status) = serde_json::from_slice::<Value>(said) else {
        let said = String::from_utf8_lossy(said);
        return failure(&format!(
            "error stream protocol error: not a status in {said:?}"
        ));
    };
    match status["status"].as_str() {
        Some("Success") => json!({ "metadata": {}, "status": "Success" }),
        Some("Failure") if status["reason"] == NON_ZERO => exit(&status),
        Some("Failure") => failure(status["message"].as_str().unwrap_or_default()),
        _ => failure("error stream protocol error: unknown error"),
    }
}

fn exit(status: &Value) -> Value {
    let causes = status["details"]["causes"].as_array();
    let code = causes
        .into_iter()
        .flatten()
        .find(|cause| cause["reason"] == EXIT_CODE)
        .map(|cause| cause["message"].as_str().unwrap_or_default());
    let Some(code) = code else {
        return failure(&format!(
            "error stream protocol error: no {EXIT_CODE} cause given"
        ));
    };
    let Ok(code) = code.parse::<u8>() else {
        return failure(&format!(
            "error stream protocol error: invalid exit code value {code:?}"
        ));
    };
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!(
            "command terminated with non-zero exit code: command terminated with exit code {code}"
        ),
        "reason": NON_ZERO,
        "details": { "causes": [{ "reason": EXIT_CODE, "message": code.to_string() }] },
    })
}

/// A stream that could not be had, or broke.
pub(super) fn failure(why: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("Internal error occurred: {why}"),
        "reason": "InternalError",
        "details": { "causes": [{ "message": why }] },
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_end_is_told_as_it_was() {
        assert_eq!(status(b"")["status"], "Success");
        assert_eq!(status(br#"{"status":"Success"}"#)["status"], "Success");
        let ended = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"x",
            "details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        let told = status(ended);
        assert_eq!(told["details"]["causes"][0]["message"], "3");
        assert_eq!(told["reason"], "NonZeroExitCode");
        let failed = br#"{"status":"Failure","reason":"InternalError","message":"no such file"}"#;
        let told = status(failed);
        assert_eq!(told["message"], "Internal error occurred: no such file");
    }

    #[test]
    fn what_is_no_status_is_an_error() {
        for said in [
            &b"plain"[..],
            b"{}",
            br#"{"status":"Failure","reason":"NonZeroExitCode"}"#,
            br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[
                {"reason":"ExitCode","message":"300"}]}}"#,
        ] {
            assert_eq!(status(said)["code"], 500);
        }
    }
}
