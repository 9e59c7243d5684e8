//! The RPCs of etcd's Auth service.
//!
//! Every change: a read barrier, the rules as they are, root only, a plan, and one
//! transaction that compares the state's row. A lost race is planned again; a lost
//! answer is found by the mark that the change left in the state's row.

use aws_lc_rs::rand;
use nautilus_machine::{Command, Outcome, Proposal, ProposeError};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::change::{Change, plan};
use super::directory::ROOT;
use super::password;
use super::rows::{CHANGE_BYTES, Permission, Right, TOKEN_KEY_BYTES, TokenKey};
use crate::access::Wanted;
use crate::errors::{self, Fault};
use crate::proto::authpb;
use crate::proto::etcdserverpb::{self as pb, auth_server::Auth};
use crate::session::Session;

/// Attempts of a change against other changes.
const CHANGE_ATTEMPTS: usize = 16;
/// Attempts to give a token while the rules change.
const TOKEN_ATTEMPTS: usize = 8;

type Answer<T> = Result<Response<T>, Status>;

impl Session {
    async fn change(
        &self,
        metadata: &MetadataMap,
        mut change: impl FnMut() -> Result<Change, Fault> + Send,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let context = &self.context;
        let kv = &context.parts.kv;
        let barrier = kv.read_barrier().await;
        barrier.map_err(|error| errors::not_confirmed(&error))?;
        for _ in 0..CHANGE_ATTEMPTS {
            context
                .access
                .check(self.caller(metadata), Wanted::Root)
                .await?;
            let directory = context.access.authentication().directory()?;
            let mark = random::<CHANGE_BYTES>()?;
            let Some(txn) = plan(&directory, change()?)?.transaction(&directory, mark) else {
                return Ok(Some(context.header_now()));
            };
            match kv.propose(Proposal::new(Command::Txn(txn))).await {
                Ok(applied) => match applied.outcome {
                    Outcome::Txn {
                        succeeded: true, ..
                    } => return Ok(Some(context.header(applied.revision))),
                    Outcome::Refused(refusal) => return Err(errors::refused(&refusal)),
                    _ => {}
                },
                Err(lost @ ProposeError::Unknown(_)) => {
                    let barrier = kv.read_barrier().await;
                    barrier.map_err(|_| errors::not_proposed(&lost))?;
                    let now = context.access.authentication().directory()?;
                    if now.state.change == mark {
                        return Ok(Some(context.header_now()));
                    }
                    if now.version() != directory.version() {
                        // Others made changes since: whether ours was among them is not known.
                        return Err(errors::not_proposed(&lost));
                    }
                }
                Err(error) => return Err(errors::not_proposed(&error)),
            }
        }
        Err(errors::TOO_MANY_REQUESTS.into())
    }

    /// The hash of a new user's or a changed password.
    async fn hash(&self, text: String, from_client: &str) -> Result<Option<String>, Status> {
        let text = Zeroizing::new(text);
        if text.is_empty() && !from_client.is_empty() {
            return Ok(Some(password::from_client(from_client)?));
        }
        let passwords = &self.context.access.authentication().passwords;
        Ok(Some(passwords.hash(text).await?))
    }

    /// The rules after a read barrier, and whether the caller may see `of` of them.
    async fn directory_for(
        &self,
        metadata: &MetadataMap,
        of: Seen<'_>,
    ) -> Result<std::sync::Arc<super::Directory>, Status> {
        let barrier = self.context.parts.kv.read_barrier().await;
        barrier.map_err(|error| errors::not_confirmed(&error))?;
        let access = &self.context.access;
        let directory = access.authentication().directory()?;
        let caller = self.caller(metadata);
        let Err(refused) = access.check(caller, Wanted::Root).await else {
            return Ok(directory);
        };
        if !directory.is_enabled() {
            return Err(refused);
        }
        let who = access.identify(&directory, caller)?;
        let own = match of {
            Seen::User(name) => who.is_some_and(|who| who.user == name),
            Seen::Role(role) => directory.has_role(who.as_ref(), role),
            Seen::All => false,
        };
        if own { Ok(directory) } else { Err(refused) }
    }
}

/// What of the rules is asked for.
enum Seen<'a> {
    All,
    User(&'a str),
    Role(&'a str),
}

fn random<const N: usize>() -> Result<[u8; N], Status> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Status::internal("no random numbers"))?;
    Ok(bytes)
}

fn permission(said: Option<authpb::Permission>) -> Result<Permission, Fault> {
    let said = said.ok_or(errors::PERMISSION_NOT_GIVEN)?;
    let right = match authpb::permission::Type::try_from(said.perm_type) {
        Ok(authpb::permission::Type::Read) => Right::Read,
        Ok(authpb::permission::Type::Write) => Right::Write,
        Ok(authpb::permission::Type::Readwrite) => Right::ReadWrite,
        Err(_) => return Err(errors::INVALID_AUTH_MANAGEMENT),
    };
    Ok(Permission {
        right,
        key: said.key,
        range_end: said.range_end,
    })
}

fn to_proto(permission: &Permission) -> authpb::Permission {
    let right = match permission.right {
        Right::Read => authpb::permission::Type::Read,
        Right::Write => authpb::permission::Type::Write,
        Right::ReadWrite => authpb::permission::Type::Readwrite,
    };
    authpb::Permission {
        perm_type: right.into(),
        key: permission.key.clone(),
        range_end: permission.range_end.clone(),
    }
}

/// Everything, which the role of that name may by definition.
fn root_permission() -> authpb::Permission {
    authpb::Permission {
        perm_type: authpb::permission::Type::Readwrite.into(),
        key: bytes::Bytes::new(),
        range_end: bytes::Bytes::from_static(b"\0"),
    }
}

#[tonic::async_trait]
impl Auth for Session {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Answer<pb::AuthEnableResponse> {
        let key = Zeroizing::new(random::<TOKEN_KEY_BYTES>()?);
        let change = || {
            Ok(Change::Enable {
                token_key: TokenKey(key.clone()),
            })
        };
        let header = self.change(request.metadata(), change).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Answer<pb::AuthDisableResponse> {
        let header = self
            .change(request.metadata(), || Ok(Change::Disable))
            .await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Answer<pb::AuthStatusResponse> {
        let barrier = self.context.parts.kv.read_barrier().await;
        barrier.map_err(|error| errors::not_confirmed(&error))?;
        let access = &self.context.access;
        let directory = access.authentication().directory()?;
        if !directory.is_enabled() {
            access
                .check(self.caller(request.metadata()), Wanted::Authenticated)
                .await?;
        }
        Ok(Response::new(pb::AuthStatusResponse {
            header: Some(self.context.header_now()),
            enabled: directory.is_enabled(),
            auth_revision: directory.revision(),
        }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Answer<pb::AuthenticateResponse> {
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let password = Zeroizing::new(password);
        let kv = &self.context.parts.kv;
        let barrier = kv.read_barrier().await;
        barrier.map_err(|error| errors::not_confirmed(&error))?;
        let authentication = self.context.access.authentication();
        for _ in 0..TOKEN_ATTEMPTS {
            let directory = authentication.directory()?;
            let given = authentication.authenticate(&directory, &name, password.clone());
            let token = given.await.inspect_err(|fault| {
                metrics::counter!("nautilus_etcd_authentications_refused_total").increment(1);
                tracing::info!(user = %name, reason = fault.message, "authentication refused");
            })?;
            if authentication.directory()?.version() == directory.version() {
                return Ok(Response::new(pb::AuthenticateResponse {
                    header: Some(self.context.header_now()),
                    token,
                }));
            }
        }
        Err(errors::AUTH_OLD_REVISION.into())
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Answer<pb::AuthUserAddResponse> {
        let (metadata, _, said) = request.into_parts();
        self.context
            .access
            .check(self.caller(&metadata), Wanted::Root)
            .await?;
        let no_password = said.options.is_some_and(|options| options.no_password);
        let password_hash = if no_password {
            None
        } else {
            self.hash(said.password, &said.hashed_password).await?
        };
        let change = || {
            Ok(Change::UserAdd {
                name: said.name.clone(),
                password_hash: password_hash.clone(),
                no_password,
            })
        };
        let header = self.change(&metadata, change).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Answer<pb::AuthUserGetResponse> {
        let name = &request.get_ref().name;
        let directory = self
            .directory_for(request.metadata(), Seen::User(name))
            .await?;
        let account = directory.users.get(name).ok_or(errors::USER_NOT_FOUND)?;
        Ok(Response::new(pb::AuthUserGetResponse {
            header: Some(self.context.header_now()),
            roles: account.row.roles.clone(),
        }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Answer<pb::AuthUserListResponse> {
        let directory = self.directory_for(request.metadata(), Seen::All).await?;
        Ok(Response::new(pb::AuthUserListResponse {
            header: Some(self.context.header_now()),
            users: directory.users.keys().cloned().collect(),
        }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Answer<pb::AuthUserDeleteResponse> {
        let (metadata, _, said) = request.into_parts();
        let change = || {
            Ok(Change::UserDelete {
                name: said.name.clone(),
            })
        };
        let header = self.change(&metadata, change).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Answer<pb::AuthUserChangePasswordResponse> {
        let (metadata, _, said) = request.into_parts();
        self.context
            .access
            .check(self.caller(&metadata), Wanted::Root)
            .await?;
        let password_hash = if said.password.is_empty() && said.hashed_password.is_empty() {
            None
        } else {
            self.hash(said.password, &said.hashed_password).await?
        };
        let change = || {
            Ok(Change::UserChangePassword {
                name: said.name.clone(),
                password_hash: password_hash.clone(),
            })
        };
        let header = self.change(&metadata, change).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Answer<pb::AuthUserGrantRoleResponse> {
        let (metadata, _, said) = request.into_parts();
        let change = || {
            Ok(Change::UserGrantRole {
                name: said.user.clone(),
                role: said.role.clone(),
            })
        };
        let header = self.change(&metadata, change).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Answer<pb::AuthUserRevokeRoleResponse> {
        let (metadata, _, said) = request.into_parts();
        let change = || {
            Ok(Change::UserRevokeRole {
                name: said.name.clone(),
                role: said.role.clone(),
            })
        };
        let header = self.change(&metadata, change).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Answer<pb::AuthRoleAddResponse> {
        let (metadata, _, said) = request.into_parts();
        let change = || {
            Ok(Change::RoleAdd {
                name: said.name.clone(),
            })
        };
        let header = self.change(&metadata, change).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Answer<pb::AuthRoleGetResponse> {
        let name = &request.get_ref().role;
        let directory = self
            .directory_for(request.metadata(), Seen::Role(name))
            .await?;
        let role = directory.roles.get(name).ok_or(errors::ROLE_NOT_FOUND)?;
        let perm = if name == ROOT {
            vec![root_permission()]
        } else {
            role.permissions.iter().map(to_proto).collect()
        };
        Ok(Response::new(pb::AuthRoleGetResponse {
            header: Some(self.context.header_now()),
            perm,
        }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Answer<pb::AuthRoleListResponse> {
        let directory = self.directory_for(request.metadata(), Seen::All).await?;
        Ok(Response::new(pb::AuthRoleListResponse {
            header: Some(self.context.header_now()),
            roles: directory.roles.keys().cloned().collect(),
        }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Answer<pb::AuthRoleDeleteResponse> {
        let (metadata, _, said) = request.into_parts();
        let change = || {
            Ok(Change::RoleDelete {
                name: said.role.clone(),
            })
        };
        let header = self.change(&metadata, change).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Answer<pb::AuthRoleGrantPermissionResponse> {
        let (metadata, _, said) = request.into_parts();
        let change = || {
            Ok(Change::RoleGrantPermission {
                name: said.name.clone(),
                permission: permission(said.perm.clone())?,
            })
        };
        let header = self.change(&metadata, change).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse {
            header,
        }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Answer<pb::AuthRoleRevokePermissionResponse> {
        let (metadata, _, said) = request.into_parts();
        let change = || {
            Ok(Change::RoleRevokePermission {
                name: said.role.clone(),
                key: said.key.clone(),
                range_end: said.range_end.clone(),
            })
        };
        let header = self.change(&metadata, change).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse {
            header,
        }))
    }
}
