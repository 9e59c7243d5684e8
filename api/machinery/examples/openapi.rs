//! Writes the OpenAPI documents into the folder given: v2 in both forms, and each of v3:
//! for `schema/generate/openapi`, which reads them with the reference's libraries.

use std::fs;
use std::path::PathBuf;

use nautilus_machinery::openapi::{self, gnostic, gnostic_v3, v2};
use nautilus_machinery::{discovery, resource};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: openapi FOLDER")?);
    let kinds = resource::built_in();
    let document = v2::document(kinds);
    fs::write(folder.join("openapi-v2.json"), document.to_string())?;
    fs::write(folder.join("openapi-v2.pb"), gnostic::document(&document)?)?;
    for (group, version) in discovery::group_versions(kinds) {
        let Some(document) = openapi::document(kinds, group, version) else {
            continue;
        };
        let name = openapi::document_name(group, version).replace('/', "__");
        fs::write(folder.join(format!("v3-{name}.json")), document.to_string())?;
        let protobuf = gnostic_v3::document(&document);
        fs::write(folder.join(format!("v3-{name}.pb")), protobuf)?;
    }
    Ok(())
}
