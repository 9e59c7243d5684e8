//! Creates, updates and deletes: read, let admission and the strategy decide, swap, and
//! again if somebody else was first.
//!
//! Order, as the reference has it: ownership of fields and mutating admission on the
//! defaulted object, the strategy (preparation, defaults, validation), validating admission, quotas with the
//! write itself.
//!
//! The first attempt reads this node's state as it is. Whatever it would refuse, and
//! every further attempt, reads behind a barrier: a write is never refused because
//! this node lags.

use bytes::Bytes;
use nautilus_admission::attributes;
use nautilus_machine::types::KeyRange;
use nautilus_machine::{Compare, Operation, Put, Revision};
use nautilus_machinery::identity::User;
use nautilus_machinery::resource::Resource;
use nautilus_machinery::status::ApiError;
use nautilus_machinery::strategy::{self, Change, Context, DeleteOptions, Deletion};
use serde_json::Value;

use super::asked::attributes;
use super::commit::{Evidence, Swap};
use super::companions::Companions;
use super::lifetime;
use super::refusals::{contended, missing_version, uid_conflict, uid_is_immutable};
use super::stored::bytes_to_store;
use super::target::Target;
use super::{Row, Storage, metadata_text, namespaces, take_version, with_version};
use crate::admission;
use crate::apply::{self, Ownership};
use crate::audit::Remarks;
use crate::custom;
use crate::failure::Failure;
use crate::ids;

/// Attempts of one write against others of the same object.
const MAX_ATTEMPTS: u32 = 64;
/// Names tried for one `generateName`, as the reference does.
const MAX_GENERATED_NAMES: u32 = 8;

/// On whose behalf, and how.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) user: &'a User,
    pub(crate) field_manager: &'a str,
    pub(crate) dry_run: bool,
    /// Who hears what admission says beside the answer.
    pub(crate) remarks: Remarks<'a>,
}

impl Writer<'_> {
    /// Tells the client what is accepted and better written otherwise.
    fn warn(&self, resource: &Resource, old: &Value, new: &Value) {
        if self.remarks.warnings.is_some() {
            for message in strategy::warnings(resource, old, new) {
                self.remarks.warn(message);
            }
        }
    }
}

/// What came of an update.
pub(crate) enum Updated {
    /// The object as it stands now.
    Stored(Value),
    /// It was marked for deletion before and the update removed what held it.
    Removed(Value),
}

impl Updated {
    pub(crate) fn into_object(self) -> Value {
        match self {
            Self::Stored(object) | Self::Removed(object) => object,
        }
    }
}

/// What came of a delete.
pub(crate) enum Deleted {
    /// Gone; this was it.
    Removed(Value),
    /// Still there, marked: finalizers or a grace period hold it.
    Marked(Value),
}

/// One attempt's end.
enum Attempt<T> {
    Done(T),
    /// Somebody else was first: read again.
    Lost,
}

/// The values a strategy may not make itself.
struct Facts {
    now: String,
    uid: String,
    suffix: String,
}

impl Facts {
    fn new() -> Self {
        Self {
            now: ids::now_rfc3339(),
            uid: ids::uuid(),
            suffix: ids::name_suffix(),
        }
    }

    fn context<'a>(&'a self, namespace: Option<&'a str>, writer: &Writer<'a>) -> Context<'a> {
        Context {
            now: &self.now,
            uid: &self.uid,
            name_suffix: &self.suffix,
            namespace,
            user: &writer.user.name,
            field_manager: writer.field_manager,
        }
    }
}

impl Storage {
    /// Creates an object; its name may be generated.
    pub(crate) async fn create(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        mut object: Value,
        writer: &Writer<'_>,
    ) -> Result<Value, Failure> {
        let generated = metadata_text(&object, "name").is_empty()
            && !metadata_text(&object, "generateName").is_empty();
        if !metadata_text(&object, "resourceVersion").is_empty() {
            return Err(ApiError::bad_request(
                "resourceVersion should not be set on objects to be created",
            )
            .into());
        }
        let unnamed = Target {
            resource,
            namespace,
            name: "",
            subresource: None,
        };
        self.allow("create", &unnamed, writer).await?;
        if self.ownership == Ownership::ByChange {
            strategy::default_in_place(resource, &mut object);
            custom::default_definition(resource, &mut object);
            apply::track(&unnamed, writer.field_manager, None, &mut object);
        }
        let mut object = self.mutate_new(resource, namespace, object, writer).await?;
        if let Some(access) = &self.access {
            let asked = attributes(attributes::Operation::Create, &unnamed, writer, None);
            access.check_write(&asked, Some(&mut object))?;
        }
        for _ in 0..MAX_GENERATED_NAMES {
            let facts = Facts::new();
            // Only a generated name is tried again.
            let mut fresh = match generated {
                true => object.clone(),
                false => std::mem::take(&mut object),
            };
            take_version(&mut fresh);
            strategy::before_create(resource, &mut fresh, &facts.context(namespace, writer))?;
            writer.warn(resource, &Value::Null, &fresh);
            custom::check_definition(resource, None, None, &mut fresh)?;
            admission::check_expressions(resource, None, &fresh)?;
            let name = metadata_text(&fresh, "name").to_owned();
            let target = Target {
                resource,
                namespace,
                name: &name,
                subresource: None,
            };
            if let Some(admission) = &self.admission {
                let asked = attributes(attributes::Operation::Create, &target, writer, None);
                admission
                    .validate(&asked, Some(&fresh), writer.remarks)
                    .await?;
            }
            match self.insert(&target, fresh, writer).await? {
                Some(object) => return Ok(object),
                None if generated => {}
                None => return Err(self.taken(&target)?.into()),
            }
        }
        let prefix = metadata_text(&object, "generateName");
        Err(ApiError::already_exists(resource, prefix).into())
    }

    /// The refusal of a creation whose name is taken.
    fn taken(&self, target: &Target<'_>) -> Result<ApiError, Failure> {
        let refusal = ApiError::already_exists(target.resource, target.name);
        // As it is stored: nobody needs to convert it for this.
        let row = self.read_row(&target.key())?;
        let stored = row.and_then(|row| serde_json::from_slice::<Value>(&row.value).ok());
        let going = stored.is_some_and(|own| !own["metadata"]["deletionTimestamp"].is_null());
        Ok(match going {
            true => {
                let message = format!("object is being deleted: {}", refusal.message());
                refusal.with_message(message)
            }
            false => refusal,
        })
    }

    /// The object as mutating admission leaves it. Its namespace must be open: what
    /// plugins look for in there is not missing before the namespace is.
    async fn mutate_new(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        mut object: Value,
        writer: &Writer<'_>,
    ) -> Result<Value, Failure> {
        let Some(admission) = &self.admission else {
            return Ok(object);
        };
        let name = metadata_text(&object, "name").to_owned();
        let target = Target {
            resource,
            namespace,
            name: &name,
            subresource: None,
        };
        let asked = attributes(attributes::Operation::Create, &target, writer, None);
        if admission.mutates(&asked).await? {
            self.open_namespace(&target).await?;
            strategy::default_decoded(resource, &mut object)?;
            admission
                .mutate(&asked, &mut object, writer.remarks)
                .await?;
        }
        Ok(object)
    }

    /// Writes a new object; `None` if the name is taken.
    async fn insert(
        &self,
        target: &Target<'_>,
        object: Value,
        writer: &Writer<'_>,
    ) -> Result<Option<Value>, Failure> {
        let key = target.key();
        let uid = metadata_text(&object, "uid").to_owned();
        let asked = attributes(attributes::Operation::Create, target, writer, None);
        for attempt in 0..MAX_ATTEMPTS {
            let open = self.open_namespace(target).await?;
            let mut object = object.clone();
            let mut companions = match self.companions(&asked, Some(&mut object)).await {
                // This node may lag: what it knows as taken may be free again.
                Err(failure) if may_be_stale(attempt, writer, &failure) => {
                    self.barrier().await?;
                    continue;
                }
                companions => companions?,
            };
            if writer.dry_run {
                self.barrier().await?;
                let taken = self.read_row(&key)?.is_some();
                return Ok((!taken).then_some(object));
            }
            if let Some((namespace_key, revision)) = open {
                let compare = Compare::mod_revision(namespace_key, revision);
                companions.compare.push(compare);
            }
            let absent = Compare::mod_revision(key.clone(), 0);
            let bytes = bytes_to_store(target.resource, &object).await?;
            let put = put(target.resource, &key, bytes);
            let evidence = Evidence::Uid(&uid);
            match self.swap(&key, absent, put, companions, evidence).await? {
                Swap::Done(revision) => return Ok(Some(with_version(object, revision))),
                // This node has applied the lost swap: what it reads now is why.
                Swap::Lost if self.read_row(&key)?.is_some() => return Ok(None),
                Swap::Lost => {}
            }
        }
        Err(contended(target))
    }

    /// The namespace's key and revision, for a comparison that keeps a create from
    /// slipping into a namespace that is being emptied. 404 or 403 if it is not open.
    async fn open_namespace(
        &self,
        target: &Target<'_>,
    ) -> Result<Option<(String, Revision)>, Failure> {
        let Some(namespace) = target.namespace.filter(|_| target.resource.namespaced) else {
            return Ok(None);
        };
        let resource = namespaces()?;
        let admit = |row: &Option<Row>| {
            let object = row.as_ref().map(|row| &row.object);
            strategy::admit_to_namespace(target.resource, target.name, namespace, object)
        };
        let mut row = self.read_head(resource, None, namespace)?;
        if admit(&row).is_err() {
            self.barrier().await?;
            row = self.read_head(resource, None, namespace)?;
        }
        admit(&row)?;
        let row = row.ok_or_else(|| ApiError::not_found(resource, namespace))?;
        Ok(Some((resource.key(None, namespace), row.revision)))
    }

    /// Changes an object: `make` gives the wanted object from the present one (both
    /// with resourceVersion). An unset resourceVersion means: whatever stands.
    pub(crate) async fn update(
        &self,
        target: &Target<'_>,
        writer: &Writer<'_>,
        make: impl Fn(&Value) -> Result<Value, Failure> + Send + Sync,
    ) -> Result<Updated, Failure> {
        self.allow_update(target, writer).await?;
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 || writer.dry_run {
                self.barrier().await?;
            }
            match self.update_once(target, writer, &make).await {
                Ok(Attempt::Done(updated)) => return Ok(updated),
                Ok(Attempt::Lost) => {}
                Err(failure) if may_be_stale(attempt, writer, &failure) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(contended(target))
    }

    async fn update_once(
        &self,
        target: &Target<'_>,
        writer: &Writer<'_>,
        make: &(impl Fn(&Value) -> Result<Value, Failure> + Send + Sync),
    ) -> Result<Attempt<Updated>, Failure> {
        let row = self.existing(target).await?;
        let current = with_version(row.object.clone(), row.revision);
        let mut wanted = make(&current)?;
        self.check_identity(target, &current, &mut wanted)?;
        let version = take_version(&mut wanted);
        // A scale is written over unseen.
        let unseen = target.resource.unconditional_update || target.subresource == Some("scale");
        if version.is_empty() && !unseen {
            return Err(missing_version(target));
        }
        if !version.is_empty() && version != row.revision.to_string() {
            return Err(ApiError::conflict(target.resource, target.name).into());
        }
        if self.ownership == Ownership::ByChange {
            strategy::default_in_place(target.resource, &mut wanted);
            custom::default_definition(target.resource, &mut wanted);
            apply::track(target, writer.field_manager, Some(&current), &mut wanted);
        }
        let asked = attributes(
            attributes::Operation::Update,
            target,
            writer,
            Some(&current),
        );
        if let Some(admission) = &self.admission
            && admission.mutates(&asked).await?
        {
            strategy::default_decoded(target.resource, &mut wanted)?;
            admission
                .mutate(&asked, &mut wanted, writer.remarks)
                .await?;
        }
        if let Some(access) = &self.access {
            access.check_write(&asked, Some(&mut wanted))?;
        }
        let facts = Facts::new();
        let context = facts.context(target.namespace, writer);
        let change = strategy::before_update(
            target.resource,
            target.subresource,
            &row.object,
            &mut wanted,
            &context,
        )?;
        custom::check_definition(
            target.resource,
            target.subresource,
            Some(&row.object),
            &mut wanted,
        )?;
        if target.subresource.is_none() {
            admission::check_expressions(target.resource, Some(&row.object), &wanted)?;
            writer.warn(target.resource, &row.object, &wanted);
        }
        take_version(&mut wanted);
        if let Some(admission) = &self.admission {
            admission
                .validate(&asked, Some(&wanted), writer.remarks)
                .await?;
        }
        let companions = match change {
            Change::Unchanged => Companions::default(),
            Change::Remove => self.companions(&asked, None).await?,
            Change::Write => self.companions(&asked, Some(&mut wanted)).await?,
        };
        let swap = match change {
            Change::Unchanged => return Ok(Attempt::Done(Updated::Stored(current))),
            _ if writer.dry_run => {
                return Ok(Attempt::Done(Updated::Stored(with_version(
                    wanted,
                    row.revision,
                ))));
            }
            Change::Remove => {
                let key = target.key();
                self.remove(&key, row.revision, companions).await?
            }
            Change::Write => {
                self.replace(target, row.revision, &wanted, companions)
                    .await?
            }
        };
        Ok(match (swap, change) {
            (Swap::Lost, _) => Attempt::Lost,
            (Swap::Done(revision), Change::Remove) => {
                Attempt::Done(Updated::Removed(with_version(wanted, revision)))
            }
            (Swap::Done(revision), _) => {
                Attempt::Done(Updated::Stored(with_version(wanted, revision)))
            }
        })
    }

    /// Name, namespace and uid of the wanted object must be the present one's; what
    /// is left out is filled in.
    fn check_identity(
        &self,
        target: &Target<'_>,
        current: &Value,
        wanted: &mut Value,
    ) -> Result<(), Failure> {
        target.check_name(wanted)?;
        if let Some(namespace) = target.namespace {
            let own = metadata_text(wanted, "namespace");
            if own.is_empty() {
                wanted["metadata"]["namespace"] = namespace.into();
            } else if own != namespace {
                return Err(ApiError::bad_request(format!(
                    "the namespace of the object ({own}) does not match the namespace on the \
                     URL ({namespace})"
                ))
                .into());
            }
        }
        let (wanted_uid, uid) = (metadata_text(wanted, "uid"), metadata_text(current, "uid"));
        if wanted_uid.is_empty() {
            wanted["metadata"]["uid"] = current["metadata"]["uid"].clone();
        } else if wanted_uid != uid && self.ownership == Ownership::Applied {
            return Err(uid_is_immutable(target, wanted_uid));
        } else if wanted_uid != uid {
            return Err(uid_conflict(target, wanted_uid, uid));
        }
        Ok(())
    }

    /// Deletes an object, or marks it when something holds it.
    pub(crate) async fn delete(
        &self,
        target: &Target<'_>,
        options: &DeleteOptions,
        writer: &Writer<'_>,
    ) -> Result<Deleted, Failure> {
        self.allow_delete(target, writer).await?;
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 0 || writer.dry_run {
                self.barrier().await?;
            }
            match self.delete_once(target, options, writer).await {
                Ok(Attempt::Done(deleted)) => return Ok(deleted),
                Ok(Attempt::Lost) => {}
                Err(failure) if may_be_stale(attempt, writer, &failure) => {}
                Err(failure) => return Err(failure),
            }
        }
        Err(contended(target))
    }

    async fn delete_once(
        &self,
        target: &Target<'_>,
        options: &DeleteOptions,
        writer: &Writer<'_>,
    ) -> Result<Attempt<Deleted>, Failure> {
        let row = self.existing(target).await?;
        let facts = Facts::new();
        let context = facts.context(target.namespace, writer);
        let versioned = with_version(row.object.clone(), row.revision);
        let deletion = strategy::before_delete(target.resource, &versioned, options, &context)?;
        let asked = attributes(
            attributes::Operation::Delete,
            target,
            writer,
            Some(&versioned),
        );
        if let Some(access) = &self.access {
            access.check_write(&asked, None)?;
        }
        if let Some(admission) = &self.admission
            && deletion != Deletion::AlreadyMarked
        {
            admission.validate(&asked, None, writer.remarks).await?;
        }
        match deletion {
            Deletion::Remove if writer.dry_run => {
                let removed = strategy::removed(target.resource, versioned, &context)?;
                Ok(Attempt::Done(Deleted::Removed(removed)))
            }
            Deletion::Remove => {
                let companions = self.companions(&asked, None).await?;
                let key = target.key();
                Ok(match self.remove(&key, row.revision, companions).await? {
                    Swap::Done(revision) => {
                        let removed = strategy::removed(target.resource, row.object, &context)?;
                        Attempt::Done(Deleted::Removed(with_version(removed, revision)))
                    }
                    Swap::Lost => Attempt::Lost,
                })
            }
            Deletion::Mark(mut marked) => {
                take_version(&mut marked);
                let companions = self.mark_companions(&asked, &mut marked)?;
                if writer.dry_run {
                    let marked = with_version(marked, row.revision);
                    return Ok(Attempt::Done(Deleted::Marked(marked)));
                }
                let swap = self
                    .replace(target, row.revision, &marked, companions)
                    .await?;
                Ok(match swap {
                    Swap::Done(revision) => {
                        Attempt::Done(Deleted::Marked(with_version(marked, revision)))
                    }
                    Swap::Lost => Attempt::Lost,
                })
            }
            Deletion::AlreadyMarked => Ok(Attempt::Done(Deleted::Marked(versioned))),
        }
    }

    async fn existing(&self, target: &Target<'_>) -> Result<Row, Failure> {
        self.find(target.resource, &target.key())
            .await?
            .ok_or_else(|| ApiError::not_found(target.resource, target.name).into())
    }

    async fn replace(
        &self,
        target: &Target<'_>,
        revision: Revision,
        object: &Value,
        companions: Companions,
    ) -> Result<Swap, Failure> {
        let key = target.key();
        let bytes = bytes_to_store(target.resource, object).await?;
        let compare = Compare::mod_revision(key.clone(), revision);
        let put = put(target.resource, &key, bytes.clone());
        let evidence = Evidence::Bytes(&bytes);
        self.swap(&key, compare, put, companions, evidence).await
    }

    /// Removes a key at the revision it was read.
    async fn remove(
        &self,
        key: &str,
        revision: Revision,
        companions: Companions,
    ) -> Result<Swap, Failure> {
        let compare = Compare::mod_revision(key.to_owned(), revision);
        let range = KeyRange::single(key.to_owned());
        let delete = Operation::Delete {
            range,
            prev_kv: false,
        };
        self.swap(key, compare, delete, companions, Evidence::Gone)
            .await
    }
}

/// The write of an object, with the lease of its kind's lifetime.
pub(super) fn put(resource: &Resource, key: &str, bytes: Bytes) -> Operation {
    Operation::Put(Put {
        lease: resource.lifetime_seconds.map(lifetime::lease),
        ..Put::new(key.to_owned(), bytes)
    })
}

/// Whether a refusal may come from this node's lag: the first attempt reads without a
/// barrier. What the quorum itself failed at is no such thing.
fn may_be_stale(attempt: u32, writer: &Writer<'_>, failure: &Failure) -> bool {
    attempt == 0 && !writer.dry_run && failure.error.code() < 500
}
