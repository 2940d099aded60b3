//! The API for build scripts.

use std::fmt;
use std::path::{Path, PathBuf};

use prost_build::Config;
use prost_types::FileDescriptorSet;

use crate::check;
use crate::error::Error;
use crate::generator::Generator;
use crate::settings::{Kind, Settings};
use crate::sources::{self, Includes};

/// Compiles one `.proto` file, and what it imports, into `OUT_DIR`. Imports are looked up in the
/// folder of the file.
///
/// For several files, other folders and all settings, see [`configure`].
///
/// # Errors
///
/// Fails like [`Builder::compile_protos`].
///
/// # Panics
///
/// Panics like [`Builder::compile_protos`].
///
/// # Examples
///
/// ```no_run
/// // build.rs
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     iip_build::compile_protos("proto/kv.proto")?;
///     Ok(())
/// }
/// ```
pub fn compile_protos(proto: impl AsRef<Path>) -> Result<(), Error> {
    configure().compile_protos(&[proto], &[] as &[&Path])
}

/// Returns a [`Builder`] with the default settings.
pub fn configure() -> Builder {
    Builder::default()
}

/// Builder that compiles `.proto` files. Created by [`configure`].
///
/// Settings of single services and methods name them by a path, like the settings of
/// [`prost_build::Config`]: `.` is everything; a path with a leading dot (`.kv.v1.Kv.Get`) is a
/// package, service or method, and all that is in it; one without (`Kv.Get`) is the end of a name.
/// A path that matches nothing is an error.
///
/// # Examples
///
/// ```no_run
/// // build.rs
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     iip_build::configure()
///         .method_attribute(".kv.v1.Lock.Acquire", "#[rpc(timeout = \"24h\")]")
///         .service_setting(".", "dyn")
///         .compile_protos(&["proto/kv.proto", "proto/lock.proto"], &["proto"])?;
///     Ok(())
/// }
/// ```
#[derive(Default)]
#[must_use]
pub struct Builder {
    out_dir: Option<PathBuf>,
    extern_paths: Vec<(String, String)>,
    descriptor_set: Option<PathBuf>,
    settings: Settings,
}

impl Builder {
    /// Sets the folder of the generated files. It is created if it is missing. Default: `OUT_DIR`,
    /// which cargo sets for build scripts.
    pub fn out_dir(mut self, out_dir: impl AsRef<Path>) -> Self {
        self.out_dir = Some(out_dir.as_ref().to_owned());
        self
    }

    /// Uses an existing type for a message, enum or package: nothing is generated for it, and
    /// `rust_path` is used. The type needs `prost::Message`. See [`Config::extern_path`].
    pub fn extern_path(
        mut self,
        proto_path: impl Into<String>,
        rust_path: impl Into<String>,
    ) -> Self {
        self.extern_paths
            .push((proto_path.into(), rust_path.into()));
        self
    }

    /// Writes the descriptors of all files, including imports and options, to this file, like
    /// `protoc -o`. Default: they are not written.
    pub fn file_descriptor_set_path(mut self, path: impl AsRef<Path>) -> Self {
        self.descriptor_set = Some(path.as_ref().to_owned());
        self
    }

    /// Adds an attribute to traits, such as `#[cfg(feature = "admin")]`. Attributes of messages and
    /// fields are settings of [`Config`].
    pub fn trait_attribute(
        mut self,
        path: impl Into<String>,
        attribute: impl Into<String>,
    ) -> Self {
        self.settings.add(Kind::TraitAttribute, path, attribute);
        self
    }

    /// Adds an attribute to methods, such as `#[rpc(timeout = "500ms", on_cancel = "run")]`.
    pub fn method_attribute(
        mut self,
        path: impl Into<String>,
        attribute: impl Into<String>,
    ) -> Self {
        self.settings.add(Kind::MethodAttribute, path, attribute);
        self
    }

    /// Adds a setting to the `#[service(..)]` of traits, such as `dyn` or `path = "/v2/kv"`.
    pub fn service_setting(mut self, path: impl Into<String>, setting: impl Into<String>) -> Self {
        self.settings.add(Kind::ServiceSetting, path, setting);
        self
    }

    /// Sets the name of the trait of a service whose own name conflicts with that of a message:
    /// `KvClient` is a message of the same package, or messages `Kv` and service `KV` are both `Kv`
    /// in Rust. On the wire the service keeps its full name.
    pub fn trait_name(mut self, path: impl Into<String>, name: impl Into<String>) -> Self {
        self.settings.add(Kind::TraitName, path, name);
        self
    }

    /// Compiles these files and what they import. Imports are looked up in the folders `includes`,
    /// which must also contain the files themselves; without any, in the folders of the files.
    /// Those of `google/protobuf` are always available.
    ///
    /// Cargo is instructed to run the build script again when one of the files has changed.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or is not valid: the text has its path, line and column. Also
    /// fails if a setting cannot be used, if two services or methods would have the same name in
    /// Rust, or if the generated files cannot be written.
    ///
    /// # Panics
    ///
    /// prost-build panics if values of an enum have the same name in Rust.
    pub fn compile_protos(
        self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        self.compile_with_config(Config::new(), protos, includes)
    }

    /// Like [`compile_protos`](Self::compile_protos), but with settings for prost: attributes of
    /// types and fields, maps, bytes, a file that includes all packages (`include_file`). Settings
    /// for `protoc` have no effect.
    ///
    /// # Errors
    ///
    /// Fails like [`compile_protos`](Self::compile_protos).
    ///
    /// # Panics
    ///
    /// Panics like [`compile_protos`](Self::compile_protos), and if an attribute in `config` is not
    /// Rust.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// // build.rs
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let mut config = iip_build::prost_build::Config::new();
    ///     config.type_attribute("kv.v1.Key", "#[derive(Eq, Hash)]").bytes(["."]);
    ///     iip_build::configure().compile_with_config(config, &["proto/kv.proto"], &["proto"])?;
    ///     Ok(())
    /// }
    /// ```
    pub fn compile_with_config(
        self,
        config: Config,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        let protos: Vec<&Path> = protos.iter().map(AsRef::as_ref).collect();
        let includes = Includes::new(includes.iter().map(AsRef::as_ref), &protos);
        let compiled = sources::compile(&protos, &includes)?;
        if let Some(path) = &self.descriptor_set {
            write(path, &compiled.encode_file_descriptor_set())?;
        }
        // A program that is not a build script must not print this.
        if std::env::var_os("OUT_DIR").is_some() {
            for path in sources::read_files(&compiled) {
                println!("cargo:rerun-if-changed={}", path.display());
            }
        }
        self.generate(config, compiled.file_descriptor_set(), &includes)
    }

    /// Generates code from descriptors that `protoc` or another compiler has created, with their
    /// imports and source information.
    ///
    /// [`file_descriptor_set_path`](Self::file_descriptor_set_path) has no effect here, and cargo
    /// gets no instructions.
    ///
    /// # Errors
    ///
    /// Fails like [`compile_protos`](Self::compile_protos), and for a file of an edition.
    ///
    /// # Panics
    ///
    /// Panics like [`compile_with_config`](Self::compile_with_config).
    pub fn compile_fds_with_config(
        self,
        fds: FileDescriptorSet,
        config: Config,
    ) -> Result<(), Error> {
        self.generate(config, fds, &Includes::default())
    }

    fn generate(
        self,
        mut config: Config,
        fds: FileDescriptorSet,
        includes: &Includes,
    ) -> Result<(), Error> {
        check::all(&fds, &self.settings, includes)?;
        if let Some(out_dir) = &self.out_dir {
            std::fs::create_dir_all(out_dir)
                .map_err(|error| Error::new(format!("{}: {error}", out_dir.display())))?;
            config.out_dir(out_dir);
        }
        for (proto, rust) in &self.extern_paths {
            config.extern_path(proto, rust);
        }
        config.service_generator(Box::new(Generator::new(self.settings)));
        config
            .compile_fds(fds)
            .map_err(|error| Error::new(format!("cannot generate code: {error}")))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("out_dir", &self.out_dir)
            .field("extern_paths", &self.extern_paths)
            .finish_non_exhaustive()
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(path, bytes).map_err(|error| {
        Error::new(format!(
            "cannot write the descriptors to {}: {error}",
            path.display()
        ))
    })
}
