//! Typed services over HTTP: calls with JSON, streams as events or lines, and the documents that
//! describe them.
//!
//! [`Api`] needs only a client for typed calls: it is independent of routes and groups.

mod arguments;
mod call;
mod catalog;
mod events;
pub(crate) mod headers;
mod int64;
mod lines;
mod negotiation;
mod options;
mod origin;
mod request;
mod results;

use std::sync::Arc;

use hyper::{Method, Response};
use iip_rpc::Client;

use self::call::Call;
pub(crate) use self::catalog::Catalog;
pub use self::options::{JsonInt64, TypedOptions};
pub(crate) use self::request::ApiRequest;
use crate::body::ReplyBody;
use crate::failure::Failure;

/// The services of the servers that a client calls, over HTTP. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: Client,
    options: Arc<TypedOptions>,
    catalog: Arc<Catalog>,
}

/// A document about the services.
enum Document {
    OpenApi,
    Description,
    Page,
    /// The path of the page without the final slash, to which its links are relative.
    PageFolder,
}

impl Api {
    pub(crate) fn new(client: Client, options: TypedOptions) -> Self {
        Self {
            client,
            options: Arc::new(options),
            catalog: Arc::default(),
        }
    }

    /// Creates the API of the server of this process. Its documents are for peers on whose behalf
    /// `client` may read the descriptions.
    pub(crate) fn local(client: Client, options: Arc<TypedOptions>, catalog: Arc<Catalog>) -> Self {
        Self {
            client,
            options,
            catalog,
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Returns the same services with other options.
    pub(crate) fn with_options(&self, options: TypedOptions) -> Self {
        if *self.options == options {
            return self.clone();
        }
        Self::new(self.client.clone(), options)
    }

    /// Handles a request: makes the call, or returns a document. The body of the reply may be a
    /// stream; dropping it cancels the call.
    pub(crate) async fn handle(
        &self,
        mut request: ApiRequest<'_>,
    ) -> Result<Response<ReplyBody>, Failure> {
        request.trace.add_to(&mut request.parts.headers);
        let allowed = origin::allowed(&self.options, &request.parts.headers);
        match self.reply(request, allowed.is_some()).await {
            Ok(mut response) => {
                origin::allow(response.headers_mut(), &self.options, allowed);
                Ok(response)
            }
            Err(mut failure) => {
                let more = failure.more();
                headers::protect(&mut more.headers);
                origin::allow(&mut more.headers, &self.options, allowed);
                Err(failure)
            }
        }
    }

    async fn reply(
        &self,
        request: ApiRequest<'_>,
        is_allowed: bool,
    ) -> Result<Response<ReplyBody>, Failure> {
        let target = &request.checked.target;
        let path = target.split_once('?').map_or(&**target, |(path, _)| path);
        let path = path.strip_prefix(&*self.options.prefix);
        let path = path.filter(|path| path.starts_with('/'));
        let Some(path) = path.map(str::to_owned) else {
            let prefix = &self.options.prefix;
            return Err(Failure::not_found(format!(
                "the services are under {prefix}/, see {prefix}/docs/"
            )));
        };
        if let Some(document) = Document::at(&path) {
            return self.document(&document, &request.parts.method).await;
        }
        if request.parts.method == Method::OPTIONS {
            return match is_allowed {
                true => Ok(origin::preflight(&self.options)),
                false => Err(headers::not_allowed("GET, POST")),
            };
        }
        if !is_allowed && origin::is_foreign(&request.parts) {
            return Err(origin::refused());
        }
        let found = self.catalog.find(&self.client, &path).await?;
        let found = found.ok_or_else(|| {
            let prefix = &self.options.prefix;
            Failure::not_found(format!("no method has this path, see {prefix}/docs/"))
        })?;
        Call::new(&self.client, &self.options, found, request)?
            .make()
            .await
    }

    async fn document(
        &self,
        document: &Document,
        method: &Method,
    ) -> Result<Response<ReplyBody>, Failure> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(headers::not_allowed("GET"));
        }
        let build = || async {
            if self.catalog.is_local() {
                let described = self.client.describe().await;
                described.map_err(|status| Failure::of_status(&status))?;
            }
            self.catalog.latest(&self.client).await
        };
        let text = match document {
            Document::OpenApi => build().await?.openapi(&self.options),
            Document::Description => build().await?.description(),
            Document::Page => return Ok(headers::page()),
            Document::PageFolder => return Ok(headers::moved("docs/")),
        };
        Ok(headers::reply(text, "application/json", "no-cache"))
    }
}

impl Document {
    /// Returns the document at a path, without the prefix.
    fn at(path: &str) -> Option<Self> {
        match path {
            "/openapi.json" => Some(Self::OpenApi),
            "/description.json" => Some(Self::Description),
            "/docs/" => Some(Self::Page),
            "/docs" => Some(Self::PageFolder),
            _ => None,
        }
    }
}
