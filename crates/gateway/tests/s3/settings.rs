//! How buckets behave: versioning, tags, lifecycle rules.

use pando_node::core::{
    access::{Grants, Right},
    bucket::{Expire, Noncurrent, Versioning},
};

use crate::client::{Answer, Call, Site, call};

fn put(what: &str, body: &str) -> Call {
    call("PUT", "/default").query(what, "").body(body)
}

async fn get(site: &Site, what: &str) -> Answer {
    site.client.send(call("GET", "/default").query(what, "")).await
}

/// Only an owner of a bucket changes it, and only one that is there can be changed or asked.
async fn is_guarded(site: &Site, what: &str, body: &str) {
    let writer = site.client(Grants::Buckets(vec![("default".into(), Right::Write)])).await;
    let denied = (403, "AccessDenied".to_owned());
    assert_eq!(writer.send(put(what, body)).await.outcome(), denied, "{what}");
    assert_eq!(writer.send_as_is(put(what, body)).await.outcome(), denied, "{what}, without a signature");
    let nowhere = (404, "NoSuchBucket".to_owned());
    let put = call("PUT", "/nowhere").query(what, "").body(body);
    assert_eq!(site.client.send(put).await.outcome(), nowhere, "{what}");
    let get = call("GET", "/nowhere").query(what, "");
    assert_eq!(site.client.send(get).await.outcome(), nowhere, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versioning_is_switched_on_and_suspended() {
    let site = Site::new().await;
    let body = |status: &str| format!("<VersioningConfiguration>{status}</VersioningConfiguration>");
    let status = |status: &str| body(&format!("<Status>{status}</Status>"));
    assert_eq!(get(&site, "versioning").await.ok().element("Status"), "", "never switched on");
    for (wanted, kept) in [("Enabled", Versioning::Enabled), ("Suspended", Versioning::Suspended)] {
        site.client.send(put("versioning", &status(wanted))).await.ok();
        assert_eq!(get(&site, "versioning").await.ok().element("Status"), wanted);
        assert_eq!(site.node.bucket("default").await.unwrap().settings.versioning, kept);
    }
    let illegal = (400, "IllegalVersioningConfigurationException".to_owned());
    for bad in [body(""), status("Never"), status("")] {
        assert_eq!(site.client.send(put("versioning", &bad)).await.outcome(), illegal, "{bad}");
    }
    let mfa = body("<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>");
    assert_eq!(site.client.send(put("versioning", &mfa)).await.outcome(), (501, "NotImplemented".into()));
    let garbage = site.client.send(put("versioning", "<Versioning")).await;
    assert_eq!(garbage.outcome(), (400, "MalformedXML".into()));
    is_guarded(&site, "versioning", &status("Enabled")).await;
    assert_eq!(get(&site, "versioning").await.element("Status"), "Suspended", "nothing was changed");
}

fn tagging(tags: &[(String, String)]) -> String {
    let tag =
        |(name, value): &(String, String)| format!("<Tag><Key>{name}</Key><Value>{value}</Value></Tag>");
    format!("<Tagging><TagSet>{}</TagSet></Tagging>", tags.iter().map(tag).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_have_tags() {
    let site = Site::new().await;
    let none = (404, "NoSuchTagSet".to_owned());
    assert_eq!(get(&site, "tagging").await.outcome(), none);
    let numbered = |count: usize| -> Vec<(String, String)> {
        (0..count).map(|number| (format!("name {number}"), format!("ä{number}"))).collect()
    };
    site.client.send(put("tagging", &tagging(&numbered(50)))).await.ok();
    let got = get(&site, "tagging").await.ok();
    assert_eq!((got.elements("Key").len(), got.elements("Value")[49].as_str()), (50, "ä49"));

    let one = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    let twice = [one("a", "1"), one("a", "2")].concat();
    for bad in [numbered(51), one("", "x"), one(&"n".repeat(129), "x"), one("n", &"v".repeat(257)), twice] {
        let refused = site.client.send(put("tagging", &tagging(&bad))).await;
        assert_eq!(refused.outcome(), (400, "InvalidTag".into()));
    }
    assert_eq!(get(&site, "tagging").await.elements("Key").len(), 50, "nothing was changed");
    is_guarded(&site, "tagging", &tagging(&numbered(1))).await;
    let delete = || call("DELETE", "/default").query("tagging", "");
    for _ in 0..2 {
        assert_eq!(site.client.send(delete()).await.status, 204);
    }
    assert_eq!(get(&site, "tagging").await.outcome(), none);
}

fn lifecycle(rules: &str) -> String {
    format!("<LifecycleConfiguration>{rules}</LifecycleConfiguration>")
}

#[tokio::test(flavor = "multi_thread")]
async fn lifecycle_rules_are_kept_as_the_node_knows_them() {
    let site = Site::new().await;
    let none = (404, "NoSuchLifecycleConfiguration".to_owned());
    assert_eq!(get(&site, "lifecycle").await.outcome(), none);
    let rules = lifecycle(
        "<Rule><ID>logs</ID><Status>Enabled</Status><Filter><And><Prefix>logs/</Prefix>\
         <Tag><Key>kind</Key><Value>log</Value></Tag><ObjectSizeGreaterThan>10</ObjectSizeGreaterThan>\
         <ObjectSizeLessThan>1000</ObjectSizeLessThan></And></Filter><Expiration><Days>30</Days></Expiration>\
         <NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays>\
         <NewerNoncurrentVersions>3</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>\
         <Rule><Status>Disabled</Status><Filter><Prefix></Prefix></Filter>\
         <Expiration><Date>2030-01-02T00:00:00.000Z</Date></Expiration></Rule>\
         <Rule><ID>uploads</ID><Status>Enabled</Status><Filter/><AbortIncompleteMultipartUpload>\
         <DaysAfterInitiation>2</DaysAfterInitiation></AbortIncompleteMultipartUpload>\
         <Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration></Rule>\
         <Rule><ID>one</ID><Status>Enabled</Status><Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>\
         <Expiration><Days>1</Days></Expiration></Rule>\
         <Rule><ID>old form</ID><Status>Enabled</Status><Prefix>tmp/</Prefix>\
         <Expiration><Days>1</Days></Expiration></Rule>",
    );
    site.client.send(put("lifecycle", &rules)).await.ok();
    let kept = site.node.bucket("default").await.unwrap().settings.lifecycle;
    assert_eq!(kept.len(), 5);
    let logs = &kept[0];
    assert_eq!((logs.enabled, logs.prefix.as_str(), logs.expire), (true, "logs/", Some(Expire::Days(30))));
    assert_eq!((logs.larger_than, logs.smaller_than), (Some(10), Some(1000)));
    assert_eq!(logs.tags, [("kind".to_owned(), "log".to_owned())]);
    assert_eq!(logs.noncurrent, Some(Noncurrent { days: 7, keep: 3 }));
    let dated = &kept[1];
    assert_eq!((dated.enabled, dated.expire), (false, Some(Expire::At(1_893_542_400_000))));
    assert!(!dated.id.is_empty(), "it was given an id");
    assert_eq!((kept[2].abort_uploads_days, kept[2].expire_markers), (Some(2), true));
    assert_eq!(kept[4].prefix, "tmp/");

    // What is shown is taken back, and means the same.
    let shown = get(&site, "lifecycle").await.ok().text();
    let shown = &shown[shown.find("<LifecycleConfiguration").unwrap()..];
    site.client.send(put("lifecycle", shown)).await.ok();
    assert_eq!(site.node.bucket("default").await.unwrap().settings.lifecycle, kept, "{shown}");

    is_guarded(&site, "lifecycle", &rules).await;
    assert_eq!(site.client.send(call("DELETE", "/default").query("lifecycle", "")).await.status, 204);
    assert_eq!(get(&site, "lifecycle").await.outcome(), none);
}

#[tokio::test(flavor = "multi_thread")]
async fn lifecycle_rules_that_make_no_sense_are_refused() {
    let site = Site::new().await;
    let rule = |inner: &str| format!("<Rule><Status>Enabled</Status>{inner}</Rule>");
    let all = |inner: &str| rule(&format!("<Filter/>{inner}"));
    let expire = |inner: &str| all(&format!("<Expiration>{inner}</Expiration>"));
    let abort = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation>\
                 </AbortIncompleteMultipartUpload>";
    let tag = "<Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>";
    let days = "<Expiration><Days>1</Days></Expiration>";
    let sizes = "<Filter><And><ObjectSizeGreaterThan>9</ObjectSizeGreaterThan>\
                 <ObjectSizeLessThan>9</ObjectSizeLessThan></And></Filter>";
    let noncurrent =
        |inner: &str| all(&format!("<NoncurrentVersionExpiration>{inner}</NoncurrentVersionExpiration>"));
    for (rules, status, code) in [
        (String::new(), 400, "MalformedXML"),
        (all(days).repeat(33), 400, "InvalidRequest"),
        (all(""), 400, "InvalidRequest"),
        (rule(days), 400, "MalformedXML"),
        (rule(&format!("<Filter/><Prefix>a</Prefix>{days}")), 400, "MalformedXML"),
        (all(days).replace("Enabled", "On"), 400, "MalformedXML"),
        (expire("<Days>0</Days>"), 400, "InvalidArgument"),
        (expire("<Days>-1</Days>"), 400, "InvalidArgument"),
        (expire("<Days>1</Days><Date>2030-01-02T00:00:00Z</Date>"), 400, "MalformedXML"),
        (expire("<Date>2030-01-02T03:00:00Z</Date>"), 400, "InvalidArgument"),
        (
            expire("<Days>1</Days><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker>"),
            400,
            "MalformedXML",
        ),
        (noncurrent(""), 400, "MalformedXML"),
        (
            noncurrent(
                "<NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>101</NewerNoncurrentVersions>",
            ),
            400,
            "InvalidArgument",
        ),
        (rule(&format!("{tag}{abort}")), 400, "InvalidRequest"),
        (rule(&format!("{sizes}{days}")), 400, "InvalidArgument"),
        (format!("{0}{0}", all(&format!("<ID>same</ID>{days}"))), 400, "InvalidArgument"),
        (all(&format!("<ID>{}</ID>{days}", "i".repeat(256))), 400, "InvalidArgument"),
        (
            all("<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"),
            501,
            "NotImplemented",
        ),
    ] {
        let refused = site.client.send(put("lifecycle", &lifecycle(&rules))).await;
        assert_eq!(refused.outcome(), (status, code.to_owned()), "{rules}: {}", refused.text());
    }
    assert_eq!(get(&site, "lifecycle").await.status, 404, "nothing was kept");
}
