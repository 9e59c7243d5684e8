//! Who may do what: RBAC rules, the node authorizer, reviews, and tokens as text.
//! Pure: users, rules and requests in, decisions out.
