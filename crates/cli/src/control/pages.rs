//! A listing, page by page: while the caller looks at one page, the node looks for the next.
//!
//! A caller may look for long (`pando ls | less`), and the node does not wait for ever: then the page is asked for again,
//! on a new connection. Each page says where the next one starts, so nothing is lost or told twice.

use super::{
    Client,
    message::{ListRequest, Page, Request},
};
use crate::exit::{Kind, kind_of};

/// See the file's header.
pub(crate) struct Pages {
    client: Client,
    request: ListRequest,
    asked: Asked,
}

/// What was asked for and did not come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Not even the first page was asked for.
    Nothing,
    /// A page, before the caller looked at the one before it.
    Ahead,
    /// Nothing more is to come.
    Over,
}

impl Pages {
    /// What to list, from its `after`.
    pub(crate) fn new(client: Client, request: ListRequest) -> Self {
        Self { client, request, asked: Asked::Nothing }
    }

    /// The next page; `None` after the last. After an error there is none.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<Page>> {
        let page = match std::mem::replace(&mut self.asked, Asked::Over) {
            Asked::Over => return Ok(None),
            Asked::Nothing => self.ask_and_wait().await?,
            Asked::Ahead => match self.client.page().await {
                // The node closed, rather than fell silent or said no.
                Err(error) if self.client.is_lost() && kind_of(&error) == Kind::Failed => {
                    self.client = self.client.again().await?;
                    self.ask_and_wait().await?
                }
                page => page?,
            },
        };
        if let Some(next) = &page.next {
            self.request.after = Some(next.clone());
            self.client.send(&Request::List(self.request.clone())).await?;
            self.asked = Asked::Ahead;
        }
        Ok(Some(page))
    }

    async fn ask_and_wait(&mut self) -> anyhow::Result<Page> {
        self.client.send(&Request::List(self.request.clone())).await?;
        self.client.page().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt as _, net::UnixListener};

    use super::*;
    use crate::control::{
        frame,
        message::{Reply, VERSION},
        path::socket_path,
    };

    /// A node that answers the first question of a connection, reads the second, and closes.
    async fn impatient(listener: UnixListener, pages: [Page; 2]) -> Vec<Option<String>> {
        let mut asked = Vec::new();
        for page in pages {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), VERSION);
            let question = frame::read_message(&mut stream).await.unwrap();
            let Some(Request::List(question)) = question else { panic!("{question:?}") };
            asked.push(question.after);
            let more = page.next.is_some();
            frame::write_message(&mut stream, &Reply::Page(page)).await.unwrap();
            if more {
                frame::read_message::<_, Request>(&mut stream).await.unwrap();
            }
        }
        asked
    }

    #[tokio::test]
    async fn a_page_that_was_waited_for_too_long_is_asked_for_again() {
        let data = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket_path(data.path())).unwrap();
        let page = |next: Option<&str>, prefix: &str| Page {
            objects: Vec::new(),
            prefixes: vec![prefix.to_owned()],
            next: next.map(str::to_owned),
        };
        let node = tokio::spawn(impatient(listener, [page(Some("m"), "a/"), page(None, "z/")]));
        let client = Client::connect(data.path()).await.unwrap();
        let mut pages = Pages::new(client, ListRequest::default());
        assert_eq!(pages.next().await.unwrap().unwrap().prefixes, ["a/"]);
        assert_eq!(pages.next().await.unwrap().unwrap().prefixes, ["z/"]);
        assert!(pages.next().await.unwrap().is_none());
        assert_eq!(node.await.unwrap(), [None, Some("m".to_owned())]);
    }
}
