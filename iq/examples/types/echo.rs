//! The service that returns what it gets.

use iip_rpc::{Status, service};

use crate::values::{
    Adjacent, Colour, External, Flat, Internal, Maps, Mixed, Numbers, Page, Plain, Rest, Settings,
    Structs, Tree, Untagged,
};

/// The service.
#[derive(Debug)]
pub struct Returned;

/// Defines the service, and implements it.
macro_rules! echo {
    ($($(#[$doc:meta])* $name:ident($ty:ty);)*) => {
        /// Returns what it gets.
        #[service(name = "types.v1.Echo", codec = "json")]
        pub trait Echo {
            $($(#[$doc])* async fn $name(&self, value: $ty) -> Result<$ty, Status>;)*
        }

        impl Echo for Returned {
            $(async fn $name(&self, value: $ty) -> Result<$ty, Status> {
                Ok(value)
            })*
        }
    };
}

echo! {
    /// Returns numbers.
    numbers(Numbers);
    plain(Plain);
    maps(Maps);
    structs(Structs);
    settings(Settings);
    tree(Tree);
    external(Vec<External>);
    internal(Vec<Internal>);
    adjacent(Vec<Adjacent>);
    untagged(Vec<Untagged>);
    mixed(Vec<Mixed>);
    colour(Vec<Colour>);
    flat(Flat);
    rest(Rest);
    largest(u64);
    optional(Option<u64>);
    nothing(());
    /// Its name is a reserved word, and `*/` ends no comment.
    delete(Vec<Page<Option<Tree>>>);
    then(u8);
}
