//! What a write must pass beside validation: quotas, limits, pod security, policies
//! and the forms of webhooks. Pure: requests and configurations in, verdicts out.
