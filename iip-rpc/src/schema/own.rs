//! The descriptions of this build, each made once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use iip_schema::Description;

use super::announced::Announced;
use super::builds::Describe;

/// A service as this build has it.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) description: Description,
    pub(crate) announced: Announced,
}

impl Own {
    /// The service that `describe` describes.
    pub(crate) fn of(describe: Describe) -> Arc<Self> {
        static KNOWN: Mutex<Option<HashMap<usize, Arc<Own>>>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        let own = known.entry(describe as usize).or_insert_with(|| {
            let description = describe();
            let announced = Announced::of_service(&description);
            Arc::new(Self {
                description,
                announced,
            })
        });
        Arc::clone(own)
    }
}
