//! Lists: exact, in order, in pages, with folders.

use pando_node::{Consistency, ListQuery, Node};

use crate::grove::{Grove, put};

/// Pages through a bucket and returns keys and common prefixes as they came.
async fn keys(node: &Node, query: ListQuery) -> Vec<String> {
    let mut all = Vec::new();
    let mut query = query;
    loop {
        let page = node.list("default", query.clone()).await.unwrap();
        let mut entries: Vec<String> = page.objects.into_iter().map(|object| object.key).collect();
        entries.extend(page.prefixes);
        entries.sort();
        assert!(query.limit == 0 || entries.len() <= query.limit);
        all.extend(entries);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_exact_in_pages_of_any_size() {
    let grove = Grove::of(3).await;
    let mut expected = Vec::new();
    for number in 0..120 {
        let key = format!("k/{number:04}");
        put(grove.node(number % 3), &key, b"x").await.unwrap();
        expected.push(key);
    }
    for removed in [5, 6, 7, 119] {
        grove.node(1).remove("default", &expected[removed]).await.unwrap();
    }
    let expected: Vec<_> = (0..119).filter(|n| ![5, 6, 7].contains(n)).map(|n| expected[n].clone()).collect();
    for limit in [0, 1, 7, 116, 117] {
        let query = ListQuery { limit, prefix: "k/".into(), ..ListQuery::default() };
        assert_eq!(keys(grove.node(2), query).await, expected, "pages of {limit}");
    }
    let query = ListQuery { after: Some("k/0100".into()), ..ListQuery::default() };
    assert_eq!(keys(grove.node(0), query).await, expected[98..]);
    let query = ListQuery { prefix: "nothing".into(), ..ListQuery::default() };
    assert!(keys(grove.node(0), query).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_rolled_up() {
    let grove = Grove::of(1).await;
    for key in ["a", "b/1", "b/2", "b/c/3", "b0", "d/é/1", "d/é/2", "e"] {
        put(grove.node(0), key, b"x").await.unwrap();
    }
    for limit in [0, 1, 2, 3] {
        let folder = |prefix: &str| ListQuery {
            prefix: prefix.into(),
            delimiter: Some("/".into()),
            limit,
            ..ListQuery::default()
        };
        assert_eq!(keys(grove.node(0), folder("")).await, ["a", "b/", "b0", "d/", "e"]);
        assert_eq!(keys(grove.node(0), folder("b/")).await, ["b/1", "b/2", "b/c/"]);
        assert_eq!(keys(grove.node(0), folder("d/")).await, ["d/é/"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_list_shows_what_is_here() {
    let mut grove = Grove::of(3).await;
    put(grove.node(0), "a", b"x").await.unwrap();
    grove.stop(1).await;
    grove.stop(2).await;
    let query = ListQuery { consistency: Consistency::Stale, ..ListQuery::default() };
    assert_eq!(keys(grove.node(0), query).await, ["a"]);
    assert!(grove.node(0).list("default", ListQuery::default()).await.is_err());
}
