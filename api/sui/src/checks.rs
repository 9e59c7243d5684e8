//! The four checks, over what stands on the chain. Pure: the time is an argument.
//!
//! Invariants
//! - `Active` needs every check: the token, its time, its stake, its owner.
//! - What has not the form of the package is nobody's token.

use aws_lc_rs::constant_time;
use nautilus_workers::Verdict;
use serde_json::{Map, Value};
use sui_sdk_types::Address;

type Fields = Map<String, Value>;

/// A worker of the registry (`Field<String, WorkerNode>`) against a token presented for `node_id`,
/// with a stake of at least `needed` MIST.
pub(crate) fn registered_worker(
    field: &Fields,
    token: &str,
    node_id: &str,
    needed: u64,
) -> Verdict {
    let Some(worker) = field.get("value").and_then(Value::as_object) else {
        return Verdict::Unknown;
    };
    if text(worker, "node_id") != Some(node_id) {
        return Verdict::Unknown;
    }
    let (Some(stored), Some(owner), Some(amount)) = (
        text(worker, "seal_token"),
        address(worker, "owner"),
        number(worker, "stake_amount"),
    ) else {
        return Verdict::Unknown;
    };
    // An empty token is one that was never set.
    if stored.is_empty()
        || constant_time::verify_slices_are_equal(stored.as_bytes(), token.as_bytes()).is_err()
    {
        return Verdict::Unknown;
    }
    by_stake(text(worker, "status"), amount, needed).unwrap_or(Verdict::Active {
        owner: owner.to_string(),
        stake_amount: amount,
        expires_at: None,
    })
}

/// What a token's own object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenFacts {
    pub(crate) owner: Address,
    pub(crate) stake_id: Address,
    expires_at_ms: u64,
}

impl TokenFacts {
    /// Of the object's fields, and the account that holds it, where one does.
    pub(crate) fn read(fields: &Fields, holder: Option<Address>) -> Result<Self, Verdict> {
        let (Some(owner), Some(stake_id), Some(expires_at_ms)) = (
            address(fields, "owner"),
            address(fields, "stake_id"),
            number(fields, "expires_at"),
        ) else {
            return Err(Verdict::Unknown);
        };
        // A token that was given away speaks for nobody.
        if holder.is_some_and(|holder| holder != owner) {
            return Err(Verdict::NotOwner);
        }
        Ok(Self {
            owner,
            stake_id,
            expires_at_ms,
        })
    }

    /// Whether it has ended at `now_ms`.
    pub(crate) fn has_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_at_ms
    }

    /// The verdict, by its stake's fields.
    pub(crate) fn with_stake(&self, stake: &Fields, needed: u64) -> Verdict {
        let Some(amount) = number(stake, "stake_amount") else {
            return Verdict::Unknown;
        };
        if address(stake, "owner").is_some_and(|owner| owner != self.owner) {
            return Verdict::NotOwner;
        }
        by_stake(text(stake, "status"), amount, needed).unwrap_or(Verdict::Active {
            owner: self.owner.to_string(),
            stake_amount: amount,
            // Seconds that begin before the end: never past it.
            expires_at: Some(self.expires_at_ms / 1000),
        })
    }
}

/// What is wrong with a stake; `None`: nothing.
fn by_stake(status: Option<&str>, amount: u64, needed: u64) -> Option<Verdict> {
    match status {
        Some("active") => (amount < needed).then_some(Verdict::StakeTooSmall { amount, needed }),
        Some("slashed") => Some(Verdict::Slashed),
        Some("withdrawn") => Some(Verdict::Withdrawn),
        _ => Some(Verdict::Unknown),
    }
}

fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str()
}

fn number(fields: &Fields, name: &str) -> Option<u64> {
    text(fields, name)?.parse().ok()
}

fn address(fields: &Fields, name: &str) -> Option<Address> {
    text(fields, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NEEDED: u64 = 1_000_000_000;
    const OWNER: &str = "0x00000000000000000000000000000000000000000000000000000000000000a1";

    fn fields(value: Value) -> Fields {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other} has no fields"),
        }
    }

    fn worker(change: impl FnOnce(&mut Value)) -> Fields {
        let mut field = json!({"id": "0x5", "name": "worker-1", "value": {
            "node_id": "worker-1", "owner": OWNER, "stake_amount": "1000000000",
            "status": "active", "seal_token": "seal", "join_token": "",
        }});
        change(&mut field["value"]);
        fields(field)
    }

    fn judged(field: &Fields, token: &str, node_id: &str) -> Verdict {
        registered_worker(field, token, node_id, NEEDED)
    }

    #[test]
    fn a_registered_worker_passes_by_all_four() {
        let active = Verdict::Active {
            owner: OWNER.to_owned(),
            stake_amount: 1_000_000_000,
            expires_at: None,
        };
        assert_eq!(judged(&worker(|_| {}), "seal", "worker-1"), active);
    }

    #[test]
    fn a_registered_worker_fails_by_each() {
        for (change, token, node_id, verdict) in [
            (json!({}), "sea1", "worker-1", Verdict::Unknown),
            (json!({}), "seal", "worker-2", Verdict::Unknown),
            (json!({"seal_token": ""}), "", "worker-1", Verdict::Unknown),
            (
                json!({"status": "slashed"}),
                "seal",
                "worker-1",
                Verdict::Slashed,
            ),
            (
                json!({"status": "withdrawn"}),
                "seal",
                "worker-1",
                Verdict::Withdrawn,
            ),
            (
                json!({"status": "ACTIVE"}),
                "seal",
                "worker-1",
                Verdict::Unknown,
            ),
            (json!({"owner": 5}), "seal", "worker-1", Verdict::Unknown),
            (
                json!({"stake_amount": 1e9}),
                "seal",
                "worker-1",
                Verdict::Unknown,
            ),
            (
                json!({"stake_amount": "999999999"}),
                "seal",
                "worker-1",
                Verdict::StakeTooSmall {
                    amount: 999_999_999,
                    needed: 1_000_000_000,
                },
            ),
            // A wrong token learns nothing of the stake.
            (
                json!({"status": "slashed"}),
                "other",
                "worker-1",
                Verdict::Unknown,
            ),
        ] {
            let field = worker(|worker| {
                for (name, value) in fields(change.clone()) {
                    worker[name] = value;
                }
            });
            assert_eq!(judged(&field, token, node_id), verdict, "{change}");
        }
    }

    #[test]
    fn a_token_object_is_good_with_its_stake_until_it_ends() {
        let token = fields(json!({"owner": OWNER, "stake_id": "0x7", "expires_at": "5999"}));
        let facts = TokenFacts::read(&token, None).expect("a token");
        assert!(!facts.has_expired(5998));
        assert!(facts.has_expired(5999));
        let stake = fields(json!({"stake_amount": "2000000000", "status": "active"}));
        let active = Verdict::Active {
            owner: OWNER.to_owned(),
            stake_amount: 2_000_000_000,
            expires_at: Some(5),
        };
        assert_eq!(facts.with_stake(&stake, NEEDED), active);
        let others =
            fields(json!({"stake_amount": "2000000000", "status": "active", "owner": "0xb"}));
        assert_eq!(facts.with_stake(&others, NEEDED), Verdict::NotOwner);
    }

    #[test]
    fn a_token_that_was_given_away_is_nobodys() {
        let token = fields(json!({"owner": OWNER, "stake_id": "0x7", "expires_at": "5999"}));
        let stranger = Some(Address::from_static("0xbad"));
        assert_eq!(TokenFacts::read(&token, stranger), Err(Verdict::NotOwner));
        let without = fields(json!({"owner": OWNER, "expires_at": "5999"}));
        assert_eq!(TokenFacts::read(&without, None), Err(Verdict::Unknown));
    }
}
