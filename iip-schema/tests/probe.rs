//! Descriptions by observing `Deserialize`, compared with what is expected, and with what serde
//! writes.

mod fits;
mod foreign;
mod hostile;
mod own;
mod render;
mod together;

use iip_schema::{Registry, Type, Types, probe};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The description of a type, with final names.
fn describe<T: DeserializeOwned + 'static>() -> (Type, Types) {
    let mut registry = Registry::new();
    let mut ty = probe::<T>(&mut registry);
    let (types, names) = registry.finish();
    names.apply(&mut ty);
    (ty, types)
}

/// The description of a type as text, see [`render`].
fn shown<T: DeserializeOwned + 'static>() -> String {
    let (ty, types) = describe::<T>();
    render::render(&ty, &types)
}

/// Checks that the description is the expected one, and that it fits what is written of the values.
#[track_caller]
fn check<T: DeserializeOwned + Serialize + 'static>(
    expected: &str,
    values: impl IntoIterator<Item = T>,
) {
    let (ty, types) = describe::<T>();
    let name = std::any::type_name::<T>();
    assert_eq!(
        render::render(&ty, &types),
        expected,
        "the description of {name}"
    );
    for value in values {
        let Ok(json) = serde_json::to_value(&value) else {
            panic!("a value of {name} cannot be written as JSON");
        };
        if let Err(problem) = fits::json(&json, &ty, &types) {
            panic!("{json} is not of the type {expected} of {name}: {problem}");
        }
        let standard = bincode::config::standard();
        if let Ok(bytes) = bincode::serde::encode_to_vec(&value, standard)
            && let Err(problem) = fits::bincode(&bytes, &ty, &types)
        {
            panic!("{bytes:?} of bincode is not of the type {expected} of {name}: {problem}");
        }
        if let Ok(bytes) = postcard::to_stdvec(&value)
            && let Err(problem) = fits::postcard(&bytes, &ty, &types)
        {
            panic!("{bytes:?} of postcard is not of the type {expected} of {name}: {problem}");
        }
    }
}
