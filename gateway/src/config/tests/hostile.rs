use std::fmt::Write;

use proptest::prelude::*;

use super::*;

const CORPUS: &[&str] = &[
    include_str!("../../../../examples/ack/inference-gateway.yaml"),
    include_str!("../../../../examples/ack/inference-pool.yaml"),
    include_str!("../../../../examples/ack/inference-route.yaml"),
    include_str!("../../../../examples/ack/endpoints.yaml"),
    include_str!("../../../testdata/config/mistakes/routes.yaml"),
    include_str!("../../../testdata/config/mistakes/policies.yaml"),
    BASE,
];

fn everything(text: &str) -> Report {
    let (_, report) = built(text);
    assert!(crate::check::render(&report).len() < 64 * text.len() + 100_000);
    report
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC*") {
        everything(&text);
    }

    #[test]
    fn arbitrary_yaml_like_text_never_panics(text in "[-\\[\\]{}:,&*?!|>'\"#%@ \na-c0-9~<]{0,200}") {
        everything(&text);
    }

    /// Bytes cut out, doubled, replaced or moved between real manifests.
    #[test]
    fn mutated_manifests_never_panic(
        file in 0..CORPUS.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5u8), 1..8),
    ) {
        let mut chars: Vec<char> = CORPUS[file].chars().collect();
        for (a, b, what) in edits {
            if chars.is_empty() { break }
            let (a, b) = (a.index(chars.len()), b.index(chars.len()));
            let (from, to) = (a.min(b), a.max(b));
            match what {
                0 => { chars.drain(from..to.min(from + 40)); }
                1 => { let copy = chars[from..to.min(from + 200)].to_vec(); chars.splice(to..to, copy); }
                2 => chars[a] = chars[b],
                3 => chars.swap(a, b),
                _ => chars[a] = ['\0', '[', '{', '&', '*', '\t', '9', '\u{7f}'][b % 8],
            }
        }
        everything(&chars.into_iter().collect::<String>());
    }

    /// Every value of a manifest replaced by something of another type.
    #[test]
    fn values_of_wrong_types_never_panic(
        file in 0..CORPUS.len(),
        line in any::<prop::sample::Index>(),
        value in prop::sample::select(vec!["", "[]", "{}", "-1", "99999999999999999999", "1.5", "true", "'x'", "[[[]]]", "{a: {b: []}}", "~"]),
    ) {
        let mut lines: Vec<String> = CORPUS[file].lines().map(str::to_owned).collect();
        let line = line.index(lines.len());
        if let Some((key, _)) = lines[line].clone().split_once(':') {
            lines[line] = format!("{key}: {value}");
        }
        everything(&lines.join("\n"));
    }
}

#[test]
fn complaints_are_bounded() {
    let mut text = String::from(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: a}\nspec:\n  controllerName: x\n",
    );
    (0..5000).for_each(|i| _ = writeln!(text, "  unknown{i}: 1"));
    let report = everything(&text);
    assert!(report.diagnostics.len() <= 3000 && report.left_out >= 4000);
}

#[test]
fn an_error_is_counted_even_when_the_complaints_are_full() {
    let mut text = String::from("apiVersion: v1\nkind: List\nitems:\n");
    (0..2000)
        .for_each(|i| _ = writeln!(text, "- {{apiVersion: v1, kind: ConfigMap, metadata: {{name: c{i}}}}}"));
    text.push_str("- {}\n");
    assert!(!everything(&text).ok());
}

/// Quadratic matching would take minutes here.
#[test]
fn ten_thousand_pods_meet_a_hundred_pools() {
    let mut text = String::from("apiVersion: v1\nkind: List\nitems:\n");
    for i in 0..10_000 {
        let pool = i % 100;
        let (a, b) = (i / 250, i % 250);
        _ = write!(
            text,
            "- apiVersion: v1\n  kind: Pod\n  metadata:\n    name: p{i}\n    labels: {{app: a{pool}, all: same}}\n  \
             spec: {{containers: [{{name: c, image: i, ports: [{{containerPort: 8000}}]}}]}}\n  \
             status: {{phase: Running, podIP: 10.0.{a}.{b}, conditions: [{{type: Ready, status: 'True'}}]}}\n"
        );
    }
    for i in 0..100 {
        _ = write!(
            text,
            "- apiVersion: inference.networking.k8s.io/v1\n  kind: InferencePool\n  metadata: {{name: q{i}}}\n  \
             spec: {{selector: {{matchLabels: {{all: same, app: a{i}}}}}, targetPorts: [{{number: 8000}}]}}\n\
             - apiVersion: inference.networking.x-k8s.io/v1alpha2\n  kind: InferenceModel\n  metadata: {{name: q{i}}}\n  \
             spec: {{modelName: m{i}, poolRef: {{group: inference.networking.k8s.io, name: q{i}}}}}\n"
        );
    }
    let (snapshot, report) = built(&format!("{BASE}{text}"));
    assert!(report.ok());
    assert_eq!(snapshot.pools.iter().map(|pool| pool.endpoints.len()).sum::<usize>(), 10_000);
}
