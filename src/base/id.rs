//! Names of things: members, reactors, connections, and where a reply goes.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name($int);

        impl $name {
            /// The id with this number.
            #[inline]
            pub const fn new(number: $int) -> Self {
                Self(number)
            }

            /// The number of this id.
            #[inline]
            pub const fn get(self) -> $int {
                self.0
            }
        }
    };
}

id!(
    /// A member of the cluster.
    NodeId,
    u64
);
id!(
    /// A reactor of this process, counted from 0.
    ReactorId,
    u16
);
id!(
    /// A lease; 0 means none, as in etcd.
    LeaseId,
    i64
);
id!(
    /// A request of one connection, chosen by the client.
    RequestId,
    u64
);
id!(
    /// A client that has registered: the index of the log entry that did it. Never given twice.
    ClientId,
    u64
);
id!(
    /// A random 128-bit name that tells one file or one incarnation from every other.
    FileId,
    u128
);

/// A connection of one reactor: a slot and the generation of its use, so that a late reply to a
/// connection that has gone never reaches the next one in the same slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId {
    /// Index of the slot.
    pub slot: u32,
    /// How often the slot had been used before.
    pub generation: u32,
}

/// Where the reply to a request goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket {
    /// The reactor that owns the connection.
    pub reactor: ReactorId,
    /// The connection on that reactor.
    pub connection: ConnectionId,
    /// The request on that connection.
    pub request: RequestId,
    /// Bytes of the request: the credit that its reply gives back.
    pub size: u32,
    /// Whether it only reads: how many of those run at once is bounded for each connection.
    pub reads: bool,
    /// Whether it is a watch; `size` is then its serial number.
    pub watches: bool,
}
