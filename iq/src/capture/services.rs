//! The services of a recording, by the paths of their methods.

use std::collections::HashMap;

use iip_rpc::schema::Description;

use super::described::{Described, Part};
use crate::exit::{Failure, Outcome};

/// Maximum number of services in a recording.
const MAX_SERVICES: usize = 1024;

/// Descriptions of services.
#[derive(Debug, Default)]
pub(crate) struct Services {
    services: Vec<Description>,
    methods: HashMap<String, Place>,
}

/// The position of a method in the descriptions.
#[derive(Clone, Copy, Debug)]
struct Place {
    service: usize,
    method: usize,
    /// The parts of its calls that contain secrets.
    secrets: [bool; Part::ALL.len()],
}

impl Services {
    pub(crate) fn new(services: impl IntoIterator<Item = Description>) -> Outcome<Self> {
        let mut all = Self::default();
        services
            .into_iter()
            .try_for_each(|service| all.add(service))?;
        Ok(all)
    }

    /// Adds a service. If several methods have the same path, the first one is used.
    pub(crate) fn add(&mut self, service: Description) -> Outcome {
        if self.services.len() >= MAX_SERVICES {
            let text = format!("there are more than {MAX_SERVICES} services");
            return Err(Failure::Own(text));
        }
        let index = self.services.len();
        for (number, method) in service.methods.iter().enumerate() {
            let described = Described::new(&service, method, [false; Part::ALL.len()]);
            let place = Place {
                service: index,
                method: number,
                secrets: Part::ALL.map(|part| described.finds_secrets(part)),
            };
            self.methods.entry(method.path.clone()).or_insert(place);
        }
        self.services.push(service);
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Description> {
        self.services.iter()
    }

    /// Returns the method at a path. A query in the path is ignored.
    pub(crate) fn at(&self, path: &str) -> Option<Described<'_>> {
        let label = path.split_once('?').map_or(path, |(label, _)| label);
        let place = self.methods.get(label)?;
        let service = self.services.get(place.service)?;
        let method = service.methods.get(place.method)?;
        Some(Described::new(service, method, place.secrets))
    }
}
