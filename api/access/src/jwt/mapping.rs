//! From verified claims to a user.

use std::collections::BTreeMap;

use nautilus_cel::{Bindings, Budget, Program, Value as Cel};
use nautilus_machinery::identity::{AUTHENTICATED_GROUP, User};
use serde_json::{Value, json};

use super::configuration::{Authenticator, Mapped, claims_declaration, user_declaration};

/// Clocks may differ by so much, in seconds: as the reference's library has it.
const LEEWAY_S: i64 = 300;
/// Groups, and values of one extra fact, at most.
const MAX_VALUES: usize = 1_024;

impl Authenticator {
    /// The user that verified claims make at `now` (seconds), or why none.
    pub fn user(&self, claims: &Value, now: i64) -> Result<User, String> {
        self.check_standard(claims, now)?;
        let mut budget = Budget::per_object();
        let mut run = Evaluation {
            claims,
            budget: &mut budget,
        };
        let name = self.username(&mut run)?;
        let groups = match &self.groups {
            None => Vec::new(),
            Some(Mapped::Claim(claim, prefix)) => match &claims[claim.as_str()] {
                Value::Null => Vec::new(),
                value => texts(value)
                    .ok_or_else(|| format!("oidc: parse groups claim {claim:?}: no list of text"))?
                    .into_iter()
                    .map(|group| format!("{prefix}{group}"))
                    .collect(),
            },
            Some(Mapped::Expression(program)) => run
                .texts(program)
                .map_err(|why| format!("oidc: error evaluating group claim expression: {why}"))?,
        };
        let uid = match &self.uid {
            None => String::new(),
            Some(Mapped::Claim(claim, _)) => claims[claim.as_str()]
                .as_str()
                .ok_or_else(|| format!("oidc: parse uid claim {claim:?}: no text"))?
                .to_owned(),
            Some(Mapped::Expression(program)) => run
                .text(program)
                .map_err(|why| format!("oidc: error evaluating uid claim expression: {why}"))?,
        };
        let extra = self.extra(&mut run)?;
        self.check_claims(&mut run)?;
        let mut user = User {
            name,
            uid,
            groups,
            extra,
        };
        self.check_user(&user, &mut budget)?;
        if !user.in_group(AUTHENTICATED_GROUP) {
            user.groups.push(AUTHENTICATED_GROUP.to_owned());
        }
        Ok(user)
    }

    /// Issuer, audience and times: RFC 7519.
    fn check_standard(&self, claims: &Value, now: i64) -> Result<(), String> {
        if claims["iss"] != self.issuer.as_str() {
            return Err("oidc: verify token: issuer did not match".to_owned());
        }
        let audiences = texts(&claims["aud"]).unwrap_or_default();
        if !audiences
            .iter()
            .any(|audience| self.audiences.contains(audience))
        {
            return Err(format!(
                "oidc: verify token: oidc: expected audience in {:?} got {audiences:?}",
                self.audiences
            ));
        }
        let time = |claim: &str| {
            let value = &claims[claim];
            // Times may have fractions.
            value
                .as_i64()
                .or_else(|| value.as_f64().map(|time| time as i64))
        };
        match time("exp") {
            Some(exp) if exp > now => {}
            _ => return Err("oidc: verify token: oidc: token is expired".to_owned()),
        }
        if time("nbf").is_some_and(|nbf| nbf > now + LEEWAY_S) {
            return Err("oidc: verify token: oidc: token is not valid yet".to_owned());
        }
        Ok(())
    }

    fn username(&self, run: &mut Evaluation<'_, '_>) -> Result<String, String> {
        match &self.username {
            Mapped::Expression(program) => {
                let name = run.text(program).map_err(|why| {
                    format!("oidc: error evaluating username claim expression: {why}")
                })?;
                if name.is_empty() {
                    return Err("oidc: empty username via CEL expression is not allowed".to_owned());
                }
                Ok(name)
            }
            Mapped::Claim(claim, prefix) => {
                let name = run.claims[claim.as_str()]
                    .as_str()
                    .ok_or_else(|| format!("oidc: parse username claims {claim:?}: no text"))?;
                let verified = &run.claims["email_verified"];
                if claim == "email" && !verified.is_null() && *verified != true {
                    return Err("oidc: email not verified".to_owned());
                }
                Ok(format!("{prefix}{name}"))
            }
        }
    }

    fn extra(&self, run: &mut Evaluation<'_, '_>) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra = BTreeMap::new();
        if let Some(jti) = run.claims["jti"].as_str().filter(|jti| !jti.is_empty()) {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            extra.insert(key, vec![format!("JTI={jti}")]);
        }
        for (key, program) in &self.extra {
            let values = run
                .texts(program)
                .map_err(|why| format!("oidc: error evaluating extra claim expression: {why}"))?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(extra)
    }

    fn check_claims(&self, run: &mut Evaluation<'_, '_>) -> Result<(), String> {
        for (claim, wanted) in &self.required {
            match &run.claims[claim.as_str()] {
                Value::Null => {
                    return Err(format!(
                        "oidc: required claim {claim} not present in ID token"
                    ));
                }
                Value::String(value) if value == wanted => {}
                value => {
                    return Err(format!(
                        "oidc: required claim {claim} value does not match. Got = {value}, want = \
                         {wanted}"
                    ));
                }
            }
        }
        for (program, message) in &self.claim_rules {
            run.holds(program, message).map_err(|why| {
                format!("oidc: error evaluating claim validation expression: {why}")
            })?;
        }
        Ok(())
    }

    fn check_user(&self, user: &User, budget: &mut Budget) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let shown = json!({
            "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        });
        let declared = user_declaration();
        let mut bindings = Bindings::default();
        let value = Cel::from_json(&shown, &declared).map_err(|error| error.to_string())?;
        bindings.set("user", value);
        for (program, message) in &self.user_rules {
            let held = program
                .evaluate(&bindings, budget)
                .map_err(|error| error.to_string())
                .and_then(|value| verdict(value.as_bool(), message));
            held.map_err(|why| format!("oidc: error evaluating user info validation rule: {why}"))?;
        }
        Ok(())
    }
}

fn verdict(held: Option<bool>, message: &str) -> Result<(), String> {
    match held {
        Some(true) => Ok(()),
        Some(false) => Err(format!("validation expression failed: {message}")),
        None => Err("validation expression must return a boolean".to_owned()),
    }
}

/// A text, or a list of them.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) if list.len() <= MAX_VALUES => list
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    }
}

struct Evaluation<'a, 'b> {
    claims: &'a Value,
    budget: &'b mut Budget,
}

impl Evaluation<'_, '_> {
    fn value(&mut self, program: &Program) -> Result<Value, String> {
        let declared = claims_declaration();
        let mut bindings = Bindings::default();
        let claims = Cel::from_json(self.claims, &declared).map_err(|error| error.to_string())?;
        bindings.set("claims", claims);
        let value = program
            .evaluate(&bindings, self.budget)
            .map_err(|error| error.to_string())?;
        value.to_json().map_err(|error| error.to_string())
    }

    fn text(&mut self, program: &Program) -> Result<String, String> {
        match self.value(program)? {
            Value::String(text) => Ok(text),
            _ => Err("claim expression must return a string".to_owned()),
        }
    }

    /// Empty texts and null are none.
    fn texts(&mut self, program: &Program) -> Result<Vec<String>, String> {
        let value = self.value(program)?;
        if value.is_null() {
            return Ok(Vec::new());
        }
        let values = texts(&value);
        let mut values = values.ok_or("expression must return a string or a list of strings")?;
        values.retain(|text| !text.is_empty());
        Ok(values)
    }

    fn holds(&mut self, program: &Program, message: &str) -> Result<(), String> {
        let value = self.value(program)?;
        verdict(value.as_bool(), message)
    }
}
