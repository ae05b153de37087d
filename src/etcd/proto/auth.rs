//! Users and roles: `authpb` and the Auth service of `etcdserverpb`.

use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::kv::ResponseHeader;

/// How a user is added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct UserAddOptions {
    /// The user has no password.
    #[prost(bool, tag = "1")]
    pub no_password: bool,
}

/// What a permission allows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum PermissionType {
    /// To read.
    Read = 0,
    /// To write.
    Write = 1,
    /// To read and write.
    ReadWrite = 2,
}

/// What a role may do.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Permission {
    /// What.
    #[prost(enumeration = "PermissionType", tag = "1")]
    pub perm_type: i32,
    /// First key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// Exclusive end, as in a range.
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}

/// Turns access control on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthEnableRequest {}

/// Access control is on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthEnableResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Turns access control off.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthDisableRequest {}

/// Access control is off.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthDisableResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Asks whether access control is on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthStatusRequest {}

/// Whether access control is on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthStatusResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// It is.
    #[prost(bool, tag = "2")]
    pub enabled: bool,
    /// The revision of users and roles.
    #[prost(uint64, tag = "3")]
    pub auth_revision: u64,
}

/// Asks for a token.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthenticateRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub password: String,
}

/// A token.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthenticateResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// What later requests carry.
    #[prost(string, tag = "2")]
    pub token: String,
}

/// Adds a user.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserAddRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub password: String,
    /// How.
    #[prost(message, optional, tag = "3")]
    pub options: Option<UserAddOptions>,
    /// The hash of the password; for the log alone.
    #[prost(string, tag = "4")]
    pub hashed_password: String,
}

/// A user was added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserAddResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Asks what roles a user has.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserGetRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// What roles a user has.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserGetResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Each role.
    #[prost(string, repeated, tag = "2")]
    pub roles: Vec<String>,
}

/// Asks what users there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserListRequest {}

/// What users there are.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserListResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Each user.
    #[prost(string, repeated, tag = "2")]
    pub users: Vec<String>,
}

/// Deletes a user.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserDeleteRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A user was deleted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserDeleteResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Gives a user another password.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserChangePasswordRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub password: String,
    /// The hash of the password; for the log alone.
    #[prost(string, tag = "3")]
    pub hashed_password: String,
}

/// A user has another password.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserChangePasswordResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Gives a user a role.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserGrantRoleRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub user: String,
    /// The role.
    #[prost(string, tag = "2")]
    pub role: String,
}

/// A user has a role.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserGrantRoleResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Takes a role from a user.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserRevokeRoleRequest {
    /// The user.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The role.
    #[prost(string, tag = "2")]
    pub role: String,
}

/// A user has a role no longer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthUserRevokeRoleResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Adds a role.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleAddRequest {
    /// The role.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// A role was added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleAddResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Asks what a role may do.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleGetRequest {
    /// The role.
    #[prost(string, tag = "1")]
    pub role: String,
}

/// What a role may do.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleGetResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Each permission.
    #[prost(message, repeated, tag = "2")]
    pub perm: Vec<Permission>,
}

/// Asks what roles there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleListRequest {}

/// What roles there are.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleListResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
    /// Each role.
    #[prost(string, repeated, tag = "2")]
    pub roles: Vec<String>,
}

/// Deletes a role.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleDeleteRequest {
    /// The role.
    #[prost(string, tag = "1")]
    pub role: String,
}

/// A role was deleted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleDeleteResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Lets a role do more.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleGrantPermissionRequest {
    /// The role.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it may do.
    #[prost(message, optional, tag = "2")]
    pub perm: Option<Permission>,
}

/// A role may do more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleGrantPermissionResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}

/// Lets a role do less.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleRevokePermissionRequest {
    /// The role.
    #[prost(string, tag = "1")]
    pub role: String,
    /// First key of the permission.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// Exclusive end of the permission.
    #[prost(bytes = "bytes", tag = "3")]
    pub range_end: Bytes,
}

/// A role may do less.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct AuthRoleRevokePermissionResponse {
    /// Who answers, and at which revision.
    #[prost(message, optional, tag = "1")]
    pub header: Option<ResponseHeader>,
}
