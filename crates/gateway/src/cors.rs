//! Which pages of other origins may use a bucket (CORS): the rules, and the headers that tell a browser.
//!
//! Storing the rules is up to `s3/cors.rs`. Nothing here lets anyone do what access keys or the bucket's settings
//! don't: it is browsers that keep pages from it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use s3s::{Body, S3Error, S3ErrorCode};
use serde::{Deserialize, Serialize};

use crate::error::refuse;

/// What an answer depends on besides its URL.
const VARY: &str = "Origin, Access-Control-Request-Headers, Access-Control-Request-Method";
/// Most headers that a browser may ask for in one go: more than a request may have.
const ASKED: usize = 100;

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// What people call it.
    pub(crate) id: Option<String>,
    /// Of which pages, with at most one `*` each.
    pub(crate) origins: Vec<String>,
    pub(crate) methods: Vec<String>,
    /// Which headers they may send, with at most one `*` each.
    pub(crate) headers: Vec<String>,
    /// Which headers of answers they may see.
    pub(crate) exposed: Vec<String>,
    /// For how many seconds a browser may remember that.
    pub(crate) max_age: Option<u32>,
}

/// The rules of a bucket; the first that matches counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cors(pub(crate) Vec<Rule>);

/// Whether a text is what a pattern with at most one `*` stands for.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, end)) => {
            text.len() >= start.len() + end.len() && text.starts_with(start) && text.ends_with(end)
        }
    }
}

impl Rule {
    fn is_for(&self, origin: &str, method: &str) -> bool {
        self.methods.iter().any(|allowed| allowed == method)
            && self.origins.iter().any(|pattern| matches(pattern, origin))
    }

    fn allows_header(&self, name: &HeaderName) -> bool {
        self.headers.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), name.as_str()))
    }

    /// What a browser is told. `asked` are the headers that it wants to send.
    fn answer(&self, origin: &HeaderValue, asked: &[HeaderName]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut say = |name: HeaderName, value: &str| {
            // Rules were checked when they were stored; what can't be a header is not said.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        say(header::ACCESS_CONTROL_ALLOW_METHODS, &self.methods.join(", "));
        if !asked.is_empty() {
            let names: Vec<&str> = asked.iter().map(HeaderName::as_str).collect();
            say(header::ACCESS_CONTROL_ALLOW_HEADERS, &names.join(", "));
        }
        if !self.exposed.is_empty() {
            say(header::ACCESS_CONTROL_EXPOSE_HEADERS, &self.exposed.join(", "));
        }
        if let Some(seconds) = self.max_age {
            say(header::ACCESS_CONTROL_MAX_AGE, &seconds.to_string());
        }
        if self.origins.iter().any(|pattern| pattern == "*") {
            say(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        } else {
            say(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        headers
    }
}

impl Cors {
    /// Under which name a bucket keeps its rules, as JSON.
    pub(crate) const DOCUMENT: &str = "cors";

    pub(crate) fn encode(&self) -> Bytes {
        // Strings and numbers are always JSON.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// The rules in a document; `None` if it can't be read.
    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// What is added to the answer of a request from a page of that origin.
    fn of_request(&self, origin: &HeaderValue, method: &Method) -> Option<HeaderMap> {
        let text = origin.to_str().ok()?;
        let rule = self.0.iter().find(|rule| rule.is_for(text, method.as_str()))?;
        Some(rule.answer(origin, &[]))
    }

    /// What is answered to a browser that asks before the request itself.
    fn of_preflight(&self, origin: &HeaderValue, method: &str, asked: &[HeaderName]) -> Option<HeaderMap> {
        let text = origin.to_str().ok()?;
        let fits =
            |rule: &&Rule| rule.is_for(text, method) && asked.iter().all(|name| rule.allows_header(name));
        Some(self.0.iter().find(fits)?.answer(origin, asked))
    }

    /// Adds to an answer what a browser must know.
    pub(crate) fn tell(&self, origin: Option<&HeaderValue>, method: &Method, answer: &mut HeaderMap) {
        // Also without an origin: a cache must not give that answer to a page of another one.
        answer.append(header::VARY, HeaderValue::from_static(VARY));
        if let Some(told) = origin.and_then(|origin| self.of_request(origin, method)) {
            answer.extend(told);
        }
    }
}

/// Answers a browser that asks what a page may do (`OPTIONS`), by the rules of the bucket if it has any. A bucket that
/// is not there, and one without rules, look the same.
pub(crate) fn preflight(cors: Option<&Cors>, headers: &HeaderMap) -> Result<Response<Body>, S3Error> {
    let bad = |why: &'static str| {
        let mut error = refuse(S3ErrorCode::Custom("BadRequest".into()), why);
        error.set_status_code(StatusCode::BAD_REQUEST);
        error
    };
    let origin = headers.get(header::ORIGIN);
    let origin = origin.ok_or_else(|| bad("insufficient information: the Origin header is missing"))?;
    let method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD).and_then(|value| value.to_str().ok());
    let method =
        method.ok_or_else(|| bad("insufficient information: Access-Control-Request-Method is missing"))?;
    let mut asked = Vec::new();
    for value in headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        let text = value.to_str().map_err(|_| bad("Access-Control-Request-Headers is not text"))?;
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()).take(ASKED + 1) {
            asked.push(name.parse().map_err(|_| bad("Access-Control-Request-Headers has no header's name"))?);
        }
    }
    if asked.len() > ASKED {
        return Err(bad("Access-Control-Request-Headers names too many"));
    }
    let Some(told) = cors.and_then(|cors| cors.of_preflight(origin, method, &asked)) else {
        let why = "CORSResponse: this CORS request is not allowed: no rule of the bucket is for this origin, \
                   method and headers";
        let mut error = refuse(S3ErrorCode::Custom("AccessForbidden".into()), why);
        error.set_status_code(StatusCode::FORBIDDEN);
        return Err(error);
    };
    let mut answer = Response::new(Body::empty());
    *answer.headers_mut() = told;
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static(VARY));
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(origins: &[&str], methods: &[&str], headers: &[&str]) -> Rule {
        let all = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        Rule { origins: all(origins), methods: all(methods), headers: all(headers), ..Rule::default() }
    }

    #[test]
    fn patterns_have_one_star() {
        for (pattern, text, expected) in [
            ("*", "https://a.example", true),
            ("https://*.example", "https://a.b.example", true),
            ("https://*.example", "https://.example", true),
            ("https://*.example", "https://example", false),
            ("https://a.example", "https://a.example.evil", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let mut second = rule(&["*"], &["GET", "PUT"], &["X-Amz-*"]);
        second.max_age = Some(60);
        let cors = Cors(vec![rule(&["https://a.example"], &["GET"], &[]), second]);
        assert_eq!(Cors::decode(&cors.encode()), Some(cors.clone()));
        let a = HeaderValue::from_static("https://a.example");
        let told = cors.of_request(&a, &Method::GET).unwrap();
        assert_eq!(told[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(told[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        let wants = [HeaderName::from_static("x-amz-date")];
        let told = cors.of_preflight(&a, "GET", &wants).unwrap();
        assert_eq!(told[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*", "the first does not allow the header");
        assert_eq!(told[header::ACCESS_CONTROL_ALLOW_HEADERS], "x-amz-date");
        assert_eq!(told[header::ACCESS_CONTROL_MAX_AGE], "60");
        assert!(cors.of_preflight(&a, "DELETE", &[]).is_none());
        assert!(cors.of_preflight(&a, "GET", &[HeaderName::from_static("range")]).is_none());
    }
}
