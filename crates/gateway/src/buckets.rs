//! What strangers and browsers may do with a bucket, looked up in the network and remembered for a moment.

use std::sync::Arc;

use pando_core::bucket::Settings;
use pando_node::{Error, Node};
use s3s::S3Result;

use crate::{cors::Cors, error::of_node, remember::Memory};

/// A bucket, as those who show no access key meet it.
pub(crate) struct Open {
    settings: Settings,
    cors: Option<Cors>,
}

impl Open {
    fn of(settings: Settings) -> Self {
        let cors = settings.document(Cors::DOCUMENT).and_then(|text| Cors::decode(text));
        Self { settings, cors }
    }

    /// Whether anyone may read the object with this key.
    pub(crate) fn may_read(&self, key: &str) -> bool {
        self.settings.is_public(key)
    }

    /// Whether anyone may list it.
    pub(crate) fn may_list(&self) -> bool {
        self.settings.public_list
    }

    /// Which other origins' pages may use it.
    pub(crate) fn cors(&self) -> Option<&Cors> {
        self.cors.as_ref()
    }
}

/// The buckets that this gateway met lately. That there is none of a name is remembered, too: who asks for one can't
/// tell by the time it takes whether it is private or not there.
#[derive(Clone)]
pub(crate) struct Buckets(Arc<Inner>);

struct Inner {
    node: Node,
    known: Memory<Option<Arc<Open>>>,
}

impl Buckets {
    pub(crate) fn new(node: Node) -> Self {
        Self(Arc::new(Inner { node, known: Memory::default() }))
    }

    /// The bucket, as it was at most five seconds ago; `None` if there is none.
    pub(crate) async fn get(&self, bucket: &str) -> S3Result<Option<Arc<Open>>> {
        let look_up = async {
            match self.0.node.bucket(bucket).await {
                Ok(record) => Ok(Some(Arc::new(Open::of(record.settings)))),
                Err(Error::NoSuchBucket(_) | Error::Name(_)) => Ok(None),
                Err(error) => Err(of_node(error)),
            }
        };
        self.0.known.get(bucket, look_up).await
    }

    /// The bucket, if it was met lately.
    pub(crate) fn remembered(&self, bucket: &str) -> Option<Arc<Open>> {
        self.0.known.remembered(bucket).flatten()
    }

    /// Looks it up the next time: it was changed here.
    pub(crate) fn forget(&self, bucket: &str) {
        self.0.known.forget(bucket);
    }
}
