//! The first to see a request: pages for people and monitors, and what is refused before anything else happens.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use pando_node::Node;
use s3s::{
    Body, HttpResponse, S3Error, S3ErrorCode,
    config::{S3Config, StaticConfigProvider},
    service::{S3Service, S3ServiceBuilder},
    validation::NameValidation,
};

use crate::{
    StartError,
    auth::{Keys, Operation},
    buckets::{Buckets, Open},
    chunked, cors,
    hosts::Hosts,
    meter::{Limits, Metered},
    metrics::Metrics,
    post::{self, FIELDS, Posts},
    s3::{Face, as_rendered, forget_odd_range},
    signed, sse,
    vouched::Vouched,
    waiters::Waiters,
};

/// Most bytes of a body that is XML: the longest are the names of a thousand objects, and of ten thousand parts.
const XML: usize = 8 << 20;

/// What stands behind a listening socket.
pub(crate) struct Front {
    node: Node,
    metrics: Arc<Metrics>,
    /// Whether `/health` and `/metrics` are here.
    pages: bool,
    s3: Option<S3>,
    /// Ids of requests: where they start differs with each start.
    requests: AtomicU64,
}

/// The S3 face, and what is looked at before and after it.
struct S3 {
    service: S3Service,
    /// Uploads by HTML forms, which `s3s` does not see.
    posts: Posts,
    buckets: Buckets,
    hosts: Hosts,
    limits: Arc<Limits>,
}

/// Which names can be buckets is said by the node.
struct Names;

impl NameValidation for Names {
    fn validate_bucket_name(&self, name: &str) -> bool {
        pando_core::name::RegisterName::bucket(name).is_ok()
    }
}

impl Front {
    /// S3, and the pages if they are wanted here.
    pub(crate) fn with_s3(
        node: Node,
        metrics: Arc<Metrics>,
        pages: bool,
        domains: &[String],
    ) -> Result<Self, StartError> {
        let (buckets, hosts) = (Buckets::new(node.clone()), Hosts::new(domains)?);
        let keys = Keys::new(node.clone(), buckets.clone());
        let paused = Arc::new(Waiters::default());
        let face = || Face {
            node: node.clone(),
            metrics: metrics.clone(),
            buckets: buckets.clone(),
            paused: paused.clone(),
        };
        let mut builder = S3ServiceBuilder::new(face());
        builder.set_auth(keys.clone());
        builder.set_access(keys.clone());
        builder.set_validation(Names);
        builder.set_host(hosts.clone());
        let mut config = S3Config::default();
        config.xml_max_body_size = XML;
        // Forms are for `post`. Were one to get past it, `s3s` holds nothing of it that is large.
        config.post_object_max_file_size = 0;
        config.form_max_field_size = FIELDS;
        config.form_max_fields_size = FIELDS;
        builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        let posts = Posts { face: face(), keys, hosts: hosts.clone() };
        let limits = Arc::default();
        let s3 = Some(S3 { service: builder.build(), posts, buckets, hosts, limits });
        Ok(Self { node, metrics, pages, s3, requests: first_request() })
    }

    /// The pages, and nothing else.
    pub(crate) fn pages_only(node: Node, metrics: Arc<Metrics>) -> Self {
        Self { node, metrics, pages: true, s3: None, requests: first_request() }
    }

    /// Answers one request, whatever it is.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let began = Instant::now();
        let operation = Operation::default();
        let waits_in_vain = expects_to_continue_with_nothing(request.headers());
        let id = format!("{:016x}", self.requests.fetch_add(1, Ordering::Relaxed));
        let mut response = self.respond(request, &operation).await;
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        response.headers_mut().insert(header::SERVER, HeaderValue::from_static("pando"));
        if waits_in_vain {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let status = response.status().as_u16();
        let name = operation.get().unwrap_or("Other");
        tracing::debug!(request = id, operation = name, status, "answered");
        self.metrics.answered(name, status, began.elapsed());
        Ok(response)
    }

    async fn respond(&self, request: Request<Incoming>, operation: &Operation) -> Response<Body> {
        let is_of_bucket = self.s3.as_ref().is_some_and(|s3| s3.hosts.bucket_of(request.headers()).is_some());
        if self.pages
            && !is_of_bucket
            && is_for_pages(&request)
            && let Some(page) = self.page(&request, operation).await
        {
            return page;
        }
        match &self.s3 {
            Some(s3) => s3.respond(request, operation).await,
            None => text(StatusCode::NOT_FOUND, "there are /health and /metrics here\n"),
        }
    }

    async fn page(&self, request: &Request<Incoming>, operation: &Operation) -> Option<Response<Body>> {
        match request.uri().path() {
            "/health" => {
                operation.set("Health");
                Some(self.health())
            }
            "/metrics" => {
                operation.set("Metrics");
                let mut page = text(StatusCode::OK, self.metrics.page(&self.node).await);
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                page.headers_mut().insert(header::CONTENT_TYPE, kind);
                Some(page)
            }
            _ => None,
        }
    }

    /// 200 if this node can serve everything: a majority of the owners of everything answers it.
    fn health(&self) -> Response<Body> {
        match self.node.health() {
            Ok(()) => text(StatusCode::OK, "ok\n"),
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        }
    }
}

impl S3 {
    async fn respond(&self, request: Request<Incoming>, operation: &Operation) -> Response<Body> {
        if let Err(error) = signed::check(request.uri(), request.headers()) {
            return of_error(error);
        }
        let bucket = self.bucket_of(&request);
        let origin = request.headers().get(header::ORIGIN).cloned();
        if request.method() == Method::OPTIONS {
            operation.set("Preflight");
            // A bucket that could not be looked up has no rules that are known.
            let open = self.open(bucket.as_deref(), true).await;
            let rules = open.as_ref().and_then(|open| open.cors());
            return cors::preflight(rules, request.headers()).unwrap_or_else(of_error);
        }
        let method = request.method().clone();
        let mut response = self.serve(request, operation).await;
        let open = self.open(bucket.as_deref(), origin.is_some()).await;
        if let Some(rules) = open.as_ref().and_then(|open| open.cors()) {
            rules.tell(origin.as_ref(), &method, response.headers_mut());
        }
        response
    }

    async fn serve(&self, request: Request<Incoming>, operation: &Operation) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        let (head, body) = request.into_parts();
        let (body, account) = Metered::new(body, operation.clone(), Arc::clone(&self.limits));
        let request = Request::from_parts(head, body);
        if let Some(boundary) = post::boundary_of(&request) {
            let answered = match boundary {
                Ok(boundary) => self.posts.answer(request, &boundary, operation).await,
                Err(error) => Err(error),
            };
            return match account.excess() {
                Some(excess) => of_error(excess.into()),
                None => answered.unwrap_or_else(of_error),
            };
        }
        let (head, body) = request.into_parts();
        let (body, verdict) = Vouched::new(body, &head.headers, operation.clone());
        let mut request = chunked::bounded(Request::from_parts(head, body));
        let uri = request.uri().clone();
        forget_odd_range(&uri, request.headers_mut());
        sse::hide(request.headers_mut());
        request.extensions_mut().insert(operation.clone());
        let answer = self.service.call(request).await;
        if let Some(excess) = account.excess() {
            return of_error(excess.into());
        }
        if let Some(error) = verdict.take() {
            return of_error(error);
        }
        match answer {
            Ok(mut response) => {
                as_rendered(&mut response);
                // `s3s` says so for GET only.
                if is_head && response.headers().contains_key(header::CONTENT_RANGE) {
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                }
                response
            }
            Err(error) => {
                tracing::warn!(?error, "a request could not be answered");
                of_error(S3ErrorCode::InternalError.into())
            }
        }
    }

    /// The bucket that a request is about, if there may be one of that name.
    fn bucket_of(&self, request: &Request<Incoming>) -> Option<String> {
        let in_path = || request.uri().path().strip_prefix('/')?.split('/').next().map(str::to_owned);
        let bucket = self.hosts.bucket_of(request.headers()).or_else(in_path)?;
        Names.validate_bucket_name(&bucket).then_some(bucket)
    }

    /// What is known of that bucket; asking the network only if `ask`.
    async fn open(&self, bucket: Option<&str>, ask: bool) -> Option<Arc<Open>> {
        match ask {
            true => self.buckets.get(bucket?).await.ok().flatten(),
            false => self.buckets.remembered(bucket?),
        }
    }
}

/// A monitor asks without a signature or a query; whoever means a bucket of that name has one of them.
fn is_for_pages(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
        && request.uri().query().is_none()
        && !request.headers().contains_key(header::AUTHORIZATION)
}

/// A client that announces an empty body and asks whether to send it gets the answer itself, not `100 Continue` first.
/// The AWS CLI (1.46, 2.9) then reads the next answer on this connection wrongly and hangs: it must be the last one.
fn expects_to_continue_with_nothing(headers: &http::HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
        && headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0")
}

fn of_error(error: S3Error) -> HttpResponse {
    match error.to_http_response() {
        Ok(response) => response,
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the error could not be written\n"),
    }
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn first_request() -> AtomicU64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    AtomicU64::new((now.as_millis() as u64) << 20)
}
