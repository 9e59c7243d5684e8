//! What is wrong with how a definition's objects are converted.

use nautilus_machinery::validation::webhook::{client_config, review_versions};
use nautilus_machinery::validation::{At, Errors};
use serde_json::Value;

pub(super) fn conversion(errors: &mut Errors, spec: &Value) {
    let spec = At::root(spec).named("spec");
    let own = spec.get("conversion");
    if own.is_null() {
        return;
    }
    let strategy = own.get("strategy");
    strategy.choice(errors, &["None", "Webhook"]);
    // The reference names them as they stand in its own form.
    let client = own.get("webhook.clientConfig").named("webhookClientConfig");
    let versions = own
        .get("webhook.conversionReviewVersions")
        .named("conversionReviewVersions");
    if strategy.text() != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        client.absent(errors, why);
        if !versions.is_empty() {
            versions.forbidden(errors, why);
        }
        return;
    }
    match client.is_set() {
        true => client_config(&client, errors),
        false => client.required(errors, "required when strategy is set to Webhook"),
    }
    match versions.is_empty() {
        true => versions.required(errors, ""),
        false => review_versions(&versions, errors),
    }
}
