//! Calls about users and roles while there are none, and access control is off.

use alloc::format;

use bytes::Bytes;

use crate::decode::decode;
use crate::failure::{Code, Failure};
use crate::proto::auth::{AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest};

/// Whether a call of etcd's service `Auth` is done; one that is has an answer with nothing but its header.
///
/// # Errors
///
/// What etcd says of users and roles that do not exist. Where it would add one: that they cannot be kept here.
pub fn call(method: &str, message: Bytes) -> Result<(), Failure> {
    match method {
        "AuthDisable" | "UserList" | "RoleList" => Ok(()),
        "AuthEnable" => Err(Failure::ROOT_USER_NOT_EXIST),
        "Authenticate" => Err(Failure::AUTH_NOT_ENABLED),
        "UserGet" | "UserDelete" | "UserChangePassword" | "UserGrantRole" | "UserRevokeRole" => {
            Err(Failure::USER_NOT_FOUND)
        }
        "RoleGet" | "RoleDelete" | "RoleRevokePermission" => Err(Failure::ROLE_NOT_FOUND),
        "RoleGrantPermission" => Err(grant(&decode(message)?)),
        "UserAdd" if decode::<AuthUserAddRequest>(message.clone())?.name.is_empty() => {
            Err(Failure::USER_EMPTY)
        }
        "RoleAdd" if decode::<AuthRoleAddRequest>(message.clone())?.name.is_empty() => {
            Err(Failure::ROLE_EMPTY)
        }
        method => Err(Failure::new(
            Code::Unimplemented,
            format!("etcdserver: users and roles are not supported: {method} does nothing"),
        )),
    }
}

/// Why a permission is not granted: etcd looks at it before it looks for the role.
fn grant(request: &AuthRoleGrantPermissionRequest) -> Failure {
    let Some(permission) = &request.perm else { return Failure::PERMISSION_NOT_GIVEN };
    let (key, end) = (&permission.key, &permission.range_end);
    let is_range = end.is_empty() || end.as_ref() == [0] || end > key;
    if key.is_empty() || !is_range {
        Failure::INVALID_AUTH_MANAGEMENT
    } else {
        Failure::ROLE_NOT_FOUND
    }
}
