//! `multipart/form-data` (RFC 7578) as browsers send it: some short fields, then a file that is never in memory.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use s3s::{Body, S3Error, S3ErrorCode, S3Result, StdError, stream::ByteStream};
use tokio::time::timeout;

use crate::{
    body::BodyError,
    error::{of_body, refuse},
    meter::Excess,
};

/// Most bytes of all that comes before the file, as in S3.
pub(crate) const FIELDS: usize = 20_000;
/// How long all that comes before the file may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest boundary (RFC 2046, section 5.1.1).
const BOUNDARY: usize = 70;

/// The fields of a form, in lower case, and the file that follows them.
pub(super) struct Form {
    fields: Vec<(String, String)>,
    pub(super) file: File,
}

impl Form {
    /// The value of a field.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All fields.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// What begins so is a form, or refused.
const FORM: &[u8] = b"multipart/form-data";

/// The boundary that the content types of a request name, if one of them is that of a form, or looks like it: `s3s` reads
/// some that are none (`multipart/form-data+x`, bytes that are not ASCII) as forms, whose file it holds in memory.
pub(crate) fn boundary(content_types: &[&[u8]]) -> Option<S3Result<String>> {
    let begins = |text: &[u8]| text.get(..FORM.len()).is_some_and(|start| start.eq_ignore_ascii_case(FORM));
    if !content_types.iter().any(|text| begins(text.trim_ascii_start())) {
        return None;
    }
    let [only] = content_types else {
        return Some(Err(malformed("it has more than one Content-Type")));
    };
    let Ok(text) = std::str::from_utf8(only) else {
        return Some(Err(malformed("its Content-Type is not UTF-8")));
    };
    let (kind, rest) = text.split_at(text.find(';').unwrap_or(text.len()));
    if !kind.trim().as_bytes().eq_ignore_ascii_case(FORM) {
        return Some(Err(malformed("its Content-Type is another")));
    }
    let parameters = parameters(rest).unwrap_or_default();
    let boundary = parameters.into_iter().find(|(name, _)| name == "boundary").map(|(_, value)| value);
    let good = boundary.filter(|text| (1..=BOUNDARY).contains(&text.len()) && text.is_ascii());
    Some(good.ok_or_else(|| malformed("its Content-Type names no boundary")))
}

fn malformed(why: &'static str) -> S3Error {
    refuse(S3ErrorCode::MalformedPOSTRequest, format!("the body is not a form (multipart/form-data): {why}"))
}

/// `; name=value; name="value"`, with names in lower case.
fn parameters(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(after) = rest.strip_prefix(';') {
        let after = after.trim_start();
        if after.is_empty() {
            break;
        }
        let (name, value) = after.split_once('=')?;
        let (value, after) = match value.strip_prefix('"') {
            None => {
                let end = value.find(';').unwrap_or(value.len());
                (value[..end].trim().to_owned(), &value[end..])
            }
            Some(quoted) => {
                // Browsers write a quote as %22, others as \"; a backslash before anything else is one.
                let end = (0..quoted.len())
                    .find(|at| quoted.as_bytes()[*at] == b'"' && !quoted[..*at].ends_with('\\'))?;
                (quoted[..end].replace("\\\"", "\""), &quoted[end + 1..])
            }
        };
        found.push((name.trim().to_ascii_lowercase(), value));
        rest = after.trim_start();
    }
    rest.is_empty().then_some(found)
}

/// The name of a field and, of a file, its own.
fn disposition(head: &str) -> Option<(String, Option<String>)> {
    let value = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then(|| value.trim())
    })?;
    let (kind, rest) = value.split_at(value.find(';')?);
    if !kind.trim().eq_ignore_ascii_case("form-data") {
        return None;
    }
    let mut parameters = parameters(rest)?;
    let mut take = |wanted: &str| {
        let at = parameters.iter().position(|(name, _)| name == wanted)?;
        Some(parameters.swap_remove(at).1)
    };
    Some((take("name")?.to_ascii_lowercase(), take("filename")))
}

/// Reads a form up to its file.
pub(super) async fn read(body: Body, boundary: &str) -> S3Result<Form> {
    // As if the first boundary had a line before it, like all others.
    let buffer = BytesMut::from(&b"\r\n"[..]);
    let delimiter = Bytes::from(format!("\r\n--{boundary}"));
    let mut reader = Reader { body, buffer, used: 0 };
    match timeout(PATIENCE, reader.fields(&delimiter)).await {
        Ok(fields) => {
            let (mut fields, filename) = fields?;
            expand(&mut fields, &filename);
            Ok(Form { fields, file: File::new(reader, delimiter) })
        }
        Err(_) => Err(Excess::Pace.into()),
    }
}

/// Puts the file's name where a field's value says so. Some browsers tell all of a path, of which the end counts.
fn expand(fields: &mut [(String, String)], filename: &str) {
    let name = filename.rsplit(['/', '\\']).next().unwrap_or_default();
    for (_, value) in fields.iter_mut().filter(|(name, _)| name != "policy") {
        *value = value.replace("${filename}", name);
    }
}

struct Reader {
    body: Body,
    buffer: BytesMut,
    /// Bytes that were taken already.
    used: usize,
}

impl Reader {
    /// All fields before the file, and the file's name.
    async fn fields(&mut self, delimiter: &[u8]) -> S3Result<(Vec<(String, String)>, String)> {
        let mut fields: Vec<(String, String)> = Vec::new();
        let preamble = self.until(delimiter).await?;
        if !preamble.is_empty() && &preamble[..] != b"\r\n" {
            return Err(malformed("it does not begin with its boundary"));
        }
        loop {
            let line = self.until(b"\r\n").await?;
            if line.starts_with(b"--") {
                let why = "a form must have one file, in its last field, which is named \"file\"";
                return Err(refuse(S3ErrorCode::IncorrectNumberOfFilesInPostRequest, why));
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Err(malformed("a boundary does not end its line"));
            }
            let head = self.until(b"\r\n\r\n").await?;
            let head = std::str::from_utf8(&head).map_err(|_| malformed("a field's head is not UTF-8"))?;
            let (name, filename) = disposition(head)
                .ok_or_else(|| malformed("a field has no Content-Disposition with a name"))?;
            if name == "file" {
                return Ok((fields, filename.unwrap_or_default()));
            }
            let value = self.until(delimiter).await?;
            let value = String::from_utf8(value.to_vec()).map_err(|_| malformed("a field is not UTF-8"))?;
            if fields.iter().any(|(other, _)| *other == name) {
                return Err(refuse(
                    S3ErrorCode::InvalidArgument,
                    format!("the form has two fields {name:?}"),
                ));
            }
            fields.push((name, value));
        }
    }

    /// What comes before a pattern; the pattern is taken as well.
    async fn until(&mut self, pattern: &[u8]) -> S3Result<BytesMut> {
        let mut searched = 0;
        loop {
            let found = find(&self.buffer[searched..], pattern).map(|at| searched + at);
            if self.used + found.unwrap_or(self.buffer.len()) > FIELDS {
                let why = format!("all that comes before the file has more than {FIELDS} bytes");
                return Err(refuse(S3ErrorCode::MaxPostPreDataLengthExceededError, why));
            }
            if let Some(at) = found {
                let before = self.buffer.split_to(at);
                self.buffer.advance(pattern.len());
                self.used += at + pattern.len();
                return Ok(before);
            }
            searched = self.buffer.len().saturating_sub(pattern.len() - 1);
            match self.body.next().await {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Err(of_body(&BodyError::Connection(error))),
                None => return Err(malformed("it ends before its last boundary")),
            }
        }
    }
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    let first = pattern.first()?;
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        from += at;
        if bytes[from..].starts_with(pattern) {
            return Some(from);
        }
        from += 1;
    }
    None
}

/// The file of a form: its bytes as they come, up to the boundary. What follows it means nothing, as in S3.
pub(super) struct File {
    body: Body,
    buffer: BytesMut,
    delimiter: Bytes,
    least: u64,
    most: u64,
    given: u64,
    ended: bool,
}

impl File {
    fn new(reader: Reader, delimiter: Bytes) -> Self {
        let Reader { body, buffer, .. } = reader;
        Self { body, buffer, delimiter, least: 0, most: u64::MAX, given: 0, ended: false }
    }

    /// The same file, which fails if it is shorter or longer.
    pub(super) fn within(self, (least, most): (u64, u64)) -> Self {
        Self { least, most, ..self }
    }

    fn piece(&mut self, len: usize) -> Result<Bytes, StdError> {
        self.given += len as u64;
        if self.given > self.most {
            return Err(self.fail(BodyError::TooLarge(self.most)));
        }
        Ok(self.buffer.split_to(len).freeze())
    }

    fn fail(&mut self, why: BodyError) -> StdError {
        self.ended = true;
        why.into()
    }

    /// What is known by now: a piece, the end, or, as `None`, that more must be read.
    fn step(&mut self) -> Option<Option<Result<Bytes, StdError>>> {
        let Some(at) = find(&self.buffer, &self.delimiter) else {
            // The end may be the beginning of the delimiter.
            let most = self.buffer.len().min(self.delimiter.len() - 1);
            let kept = (1..=most).rev().find(|len| self.buffer.ends_with(&self.delimiter[..*len]));
            let len = self.buffer.len() - kept.unwrap_or(0);
            return (len > 0).then(|| Some(self.piece(len)));
        };
        if at > 0 {
            return Some(Some(self.piece(at)));
        }
        let after = self.buffer.get(self.delimiter.len()..self.delimiter.len() + 2)?;
        // The last boundary, or that of another field.
        let is_end = matches!(after, b"--" | b"\r\n");
        Some(if !is_end {
            Some(Err(self.fail(BodyError::Format)))
        } else if self.given < self.least {
            Some(Err(self.fail(BodyError::TooSmall(self.least))))
        } else {
            self.ended = true;
            None
        })
    }
}

impl Stream for File {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.ended {
                return Poll::Ready(None);
            }
            if let Some(known) = this.step() {
                return Poll::Ready(known);
            }
            match ready!(Pin::new(&mut this.body).poll_next(context)) {
                Some(Ok(bytes)) => this.buffer.extend_from_slice(&bytes),
                Some(Err(error)) => return Poll::Ready(Some(Err(this.fail(BodyError::Connection(error))))),
                None => {
                    let given = this.given;
                    return Poll::Ready(Some(Err(this.fail(BodyError::TooShort(given)))));
                }
            }
        }
    }
}

impl ByteStream for File {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that comes in pieces of this length.
    fn body(bytes: &[u8], piece: usize) -> Body {
        let pieces: Vec<Result<Bytes, std::io::Error>> =
            bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        s3s::dto::StreamingBlob::wrap(futures_util::stream::iter(pieces)).into()
    }

    async fn all(mut file: File) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        while let Some(piece) = file.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| error.to_string())?);
        }
        Ok(bytes)
    }

    fn form(file: &str) -> String {
        format!(
            "--XX\r\nContent-Disposition: form-data; name=\"Key\"\r\n\r\na/${{filename}}\r\n\
             --XX\r\nContent-Type: text/plain\r\ncontent-disposition: form-data; name=policy\r\n\r\n${{filename}}\r\n\
             --XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"C:\\dir\\x y.txt\"\r\n\
             Content-Type: text/html\r\n\r\n{file}\r\n--XX--\r\n"
        )
    }

    #[tokio::test]
    async fn forms_are_read_however_they_are_cut() {
        let nasty = "\r\n--X\r\n--\r\r\n-\r\n--XY no\r\n".replace("--XY", "--Y");
        for file in ["", "hello", "\r\n", &nasty] {
            let bytes = form(file);
            for piece in [1, 2, 3, 7, 50, 10_000] {
                let form = read(body(bytes.as_bytes(), piece), "XX").await.unwrap();
                assert_eq!(form.get("key"), Some("a/x y.txt"));
                assert_eq!(form.get("policy"), Some("${filename}"), "what was signed stays as it is");
                assert_eq!(form.fields().count(), 2);
                assert_eq!(all(form.file).await.as_deref(), Ok(file.as_bytes()), "{piece}");
            }
        }
    }

    #[tokio::test]
    async fn files_end_where_they_should() {
        let within = |file: &'static str, limits| async move {
            let form = read(body(form(file).as_bytes(), 4), "XX").await.unwrap();
            all(form.file.within(limits)).await
        };
        assert_eq!(within("hello", (5, 5)).await.as_deref(), Ok(&b"hello"[..]));
        assert!(within("hello", (6, 9)).await.unwrap_err().contains("less than 6"));
        assert!(within("hello", (0, 4)).await.unwrap_err().contains("more than 4"));
        for cut in ["\r\n--XX--\r\n", "--\r\n", "-\r\n", "\r\n"] {
            let whole = form("hello");
            let bytes = &whole.as_bytes()[..whole.len() - cut.len()];
            let form = read(body(bytes, 9), "XX").await.unwrap();
            let got = all(form.file).await;
            match cut {
                "\r\n" => assert_eq!(got.as_deref(), Ok(&b"hello"[..])),
                _ => assert!(got.unwrap_err().contains("ended"), "{cut:?}"),
            }
        }
        let other = form("hello").replace("--XX--", "--XXZ");
        let form = read(body(other.as_bytes(), 9), "XX").await.unwrap();
        assert!(all(form.file).await.is_err());
    }

    #[tokio::test]
    async fn what_is_no_form_is_refused() {
        let code = |text: String| async move {
            read(body(text.as_bytes(), 100), "XX").await.err().map(|error| error.code().as_str().to_owned())
        };
        let malformed = Some("MalformedPOSTRequest".to_owned());
        assert_eq!(code(String::new()).await, malformed);
        assert_eq!(code("nonsense".into()).await, malformed);
        assert_eq!(code("text\r\n--XX\r\n".into()).await, malformed);
        assert_eq!(code("--XXZ\r\n\r\n\r\n".into()).await, malformed);
        assert_eq!(code("--XX\r\nContent-Type: a\r\n\r\nb\r\n--XX--".into()).await, malformed);
        let field = |name: &str, value: &str| {
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let none = code(field("key", "a") + "--XX--\r\n").await;
        assert_eq!(none.as_deref(), Some("IncorrectNumberOfFilesInPostRequest"));
        let twice = code(field("key", "a") + &field("KEY", "b") + &form("")).await;
        assert_eq!(twice.as_deref(), Some("InvalidArgument"));
        let long = code(field("key", &"a".repeat(FIELDS))).await;
        assert_eq!(long.as_deref(), Some("MaxPostPreDataLengthExceededError"));
        let long = code("--XX".to_owned() + &" ".repeat(FIELDS)).await;
        assert_eq!(long.as_deref(), Some("MaxPostPreDataLengthExceededError"));
    }

    #[test]
    fn boundaries_and_names() {
        let boundary = |text: &str| boundary(&[text.as_bytes()]);
        let good = |text: &str| boundary(text).and_then(Result::ok);
        assert_eq!(good("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(good("Multipart/Form-Data ;charset=x; Boundary=\"a b\"").as_deref(), Some("a b"));
        assert!(boundary("text/plain").is_none() && boundary("multipart/mixed; boundary=a").is_none());
        for bad in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"a",
            "multipart/form-data+x; boundary=b",
            "Multipart/FORM-data-x; boundary=b",
        ] {
            assert!(boundary(bad).is_some_and(|found| found.is_err()), "{bad}");
        }
        assert!(
            boundary(&format!("multipart/form-data; boundary={}", "b".repeat(71)))
                .is_some_and(|b| b.is_err())
        );
        let form = &b"multipart/form-data; boundary=b"[..];
        let plain = &b"text/plain"[..];
        assert!(super::boundary(&[plain, plain]).is_none());
        for bad in [&[form, form][..], &[plain, form], &[b"multipart/form-data; boundary=b; a=\"\xe9\""]] {
            assert!(super::boundary(bad).is_some_and(|found| found.is_err()), "{bad:?}");
        }
        let name = |text: &str| disposition(&format!("Content-Disposition: {text}"));
        assert_eq!(name("form-data; name=\"a\\\"b\""), Some(("a\"b".to_owned(), None)));
        assert_eq!(name("attachment; name=\"a\""), None);
        assert_eq!(name("form-data; filename=\"a\""), None);
    }
}
