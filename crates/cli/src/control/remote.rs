//! A running node, for programs other than the command: what they need of [`Client`], in plain types.

use std::{io::Read, ops::Range, path::Path, time::Duration};

use super::{
    Client,
    message::{ListRequest, PutRequest, Range as Asked, Request},
    pages::Pages,
};

/// A connection to a running node. After an error it is of no more use.
pub struct Remote(Client);

/// The network, as the node that was asked sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// How many nodes are members.
    pub members: usize,
    /// How many of them answer.
    pub up: usize,
    /// Whether the layout changes at the moment.
    pub in_transition: bool,
    /// Chunks that nodes owe each other; `None` if some node did not say.
    pub owed: Option<u64>,
}

impl Remote {
    /// Connects to the node of a data folder.
    pub async fn connect(data: &Path) -> anyhow::Result<Self> {
        Client::connect(data).await.map(Self)
    }

    /// A ticket that lets one node join.
    pub async fn invite(&mut self, valid: Duration) -> anyhow::Result<String> {
        self.0.invite(valid).await
    }

    /// How the network is.
    pub async fn network(&mut self) -> anyhow::Result<Network> {
        let status = self.0.status().await?;
        Ok(Network {
            members: status.nodes.len(),
            up: status.nodes.iter().filter(|node| node.up).count(),
            in_transition: status.in_transition,
            owed: status.nodes.iter().map(|node| node.owed).sum(),
        })
    }

    /// Makes a bucket.
    pub async fn create_bucket(&mut self, name: &str) -> anyhow::Result<()> {
        self.0.command(&Request::CreateBucket { name: name.into() }, "pando bucket ls").await
    }

    /// Puts what the source gives until its end; how many copies there are, of how many wanted.
    pub async fn put(
        self,
        bucket: &str,
        key: &str,
        source: impl Read + Send + 'static,
    ) -> anyhow::Result<(u64, u64)> {
        let stored = self.0.put(request(bucket, key, false), source, |_| ()).await?;
        Ok((stored.copies, stored.wanted))
    }

    /// Puts a few bytes, `if_absent` only if there is no such object.
    pub async fn put_bytes(
        &mut self,
        bucket: &str,
        key: &str,
        content: &[u8],
        if_absent: bool,
    ) -> anyhow::Result<()> {
        self.0.put_bytes(request(bucket, key, if_absent), content).await.map(drop)
    }

    /// Hands on an object's bytes, all or those of the range, as they come; how many came.
    pub async fn get(
        &mut self,
        bucket: &str,
        key: &str,
        range: Option<Range<u64>>,
        sink: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<u64> {
        let range = range.map(|range| Asked::Inclusive(range.start, range.end.saturating_sub(1)));
        let request = Request::Get { bucket: bucket.into(), key: key.into(), range, stale: false };
        let (_, bytes) = self.0.get(&request).await?;
        let length = bytes.end - bytes.start;
        self.0.content(length, sink).await.map(|()| length)
    }

    /// Removes an object.
    pub async fn remove(&mut self, bucket: &str, key: &str) -> anyhow::Result<()> {
        self.0.command(&Request::Remove { bucket: bucket.into(), key: key.into() }, "pando stat").await
    }

    /// The keys that begin with `prefix`.
    pub fn list(self, bucket: &str, prefix: &str) -> Keys {
        let request = ListRequest { bucket: bucket.into(), prefix: prefix.into(), ..ListRequest::default() };
        Keys(Pages::new(self.0, request))
    }
}

/// Keys, page by page.
pub struct Keys(Pages);

impl Keys {
    /// The next page, in order; `None` after the last.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<String>>> {
        let page = self.0.next().await?;
        Ok(page.map(|page| page.objects.into_iter().map(|object| object.key).collect()))
    }
}

fn request(bucket: &str, key: &str, if_absent: bool) -> PutRequest {
    PutRequest { bucket: bucket.into(), key: key.into(), if_absent, ..PutRequest::default() }
}
