//! Event streams through Apache with `mod_cgid`, Apache with `mod_cgi` and
//! lighttpd, each with the configuration files that are shipped.

mod support;

use support::{Kind, Server, Stream};

stories! {
    each_event_arrives_before_the_next_is_published
    compression_holds_no_event_back
}

/// As browsers send it.
const COMPRESSED: &str = "Accept-Encoding: gzip, deflate, br, zstd";

fn each_event_arrives_before_the_next_is_published(kind: Kind) {
    assert_flow(&Server::start(kind));
}

fn compression_holds_no_event_back(kind: Kind) {
    let Some(server) = compressing(kind) else { return };
    assert_flow(&server);
    assert_eq!(server.complaints(), [""; 0]);
}

/// Apache, told by its site to compress whatever it can; Debian's lighttpd
/// has that in a package of its own.
fn compressing(kind: Kind) -> Option<Server> {
    let module = |name| format!("LoadModule {name}_module ${{MODULES}}/mod_{name}.so");
    let lines = [
        module("filter"),
        module("deflate"),
        module("brotli"),
        "SetOutputFilter BROTLI_COMPRESS;DEFLATE".into(),
        "AddOutputFilterByType DEFLATE text/event-stream text/javascript".into(),
    ];
    let server = match kind {
        Kind::Lighttpd => return None,
        _ => Server::setup(kind).lines(&lines.join("\n")).start(),
    };
    for method in ["br", "gzip"] {
        let accepted = format!("Accept-Encoding: {method}");
        let (script, _) = server.send_with("GET /novcomet/NovComet.js", &[&accepted]).head();
        assert_eq!(script.header("Content-Encoding"), Some(method), "it does compress");
    }
    Some(server)
}

/// The stream stays open, and event after event is awaited before the next is
/// published: nothing can be waiting for more to come.
fn assert_flow(server: &Server) {
    let ways: [(&str, &[&str]); 3] = [
        ("stream=1", &[COMPRESSED]),
        ("stream=json", &[COMPRESSED]),
        ("named=1", &[COMPRESSED, "Accept: text/event-stream"]),
    ];
    for (way, headers) in ways {
        let mut stream = server.stream(&format!("subscribed[flow]=0&{way}"), headers);
        assert_head(&stream);
        assert_eq!(stream.next().expect("a beginning").field("retry"), Some("1000".into()));
        for size in [0, 1, 2, 100, 4_095, 4_096, 8_192, 20_000, 61_440, 1] {
            let data = "x".repeat(size);
            server.publish("flow", &data);
            let event = stream.event().expect("an open stream");
            assert!(event.field("data").unwrap().contains(&data), "{way}, {size}");
        }
    }
}

fn assert_head(stream: &Stream) {
    let header = |name| stream.head.header(name);
    assert_eq!((stream.head.status, header("Content-Type")), (200, Some("text/event-stream")));
    assert!(header("Cache-Control").is_some_and(|value| value.contains("no-store")));
    assert_eq!(header("X-Accel-Buffering"), Some("no"));
    for absent in ["Content-Encoding", "Content-Length", "Status"] {
        assert_eq!(header(absent), None, "{absent}");
    }
}
