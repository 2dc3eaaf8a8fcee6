use super::*;

fn one(text: &str) -> Node {
    let mut documents = documents(text).unwrap();
    assert_eq!(documents.len(), 1);
    documents.remove(0)
}

fn refused(text: &str) -> TreeError {
    documents(text).unwrap_err()
}

#[test]
fn documents_are_split_and_empty_ones_left_out() {
    assert_eq!(documents("---\n---\na: 1\n---\n# nothing\n---\nb: 2\n").unwrap().len(), 2);
    assert_eq!(documents("").unwrap().len(), 0);
    assert_eq!(documents("\u{feff}a: 1").unwrap().len(), 1);
}

#[test]
fn every_node_knows_its_line_and_column() {
    let node = one("a:\n  - b: x\n    ünï: yy\n");
    let Value::Sequence(items) = &node.get("a").unwrap().value else { panic!() };
    assert_eq!(items[0].get("b").unwrap().at, Spot { line: 2, column: 8 });
    assert_eq!(items[0].get("ünï").unwrap().at, Spot { line: 3, column: 10 });
}

#[test]
fn json_is_yaml() {
    let node = one(r#"{"kind": "List", "items": [{"a": "\u00e9", "b": null}]}"#);
    let Value::Sequence(items) = &node.get("items").unwrap().value else { panic!() };
    let Value::Scalar(scalar) = &items[0].get("a").unwrap().value else { panic!() };
    assert_eq!(scalar.string(), Some("é"));
    assert!(items[0].get("b").unwrap().is_null());
}

#[test]
fn a_duplicate_key_is_refused_with_both_positions() {
    let error = refused("a:\n  b: 1\n  c: 2\n  b: 3\n");
    assert_eq!(error.at, Spot { line: 4, column: 3 });
    assert!(error.message.contains("\"b\" is here twice, first at 2:3"), "{}", error.message);
}

#[test]
fn syntax_errors_have_a_position() {
    let error = refused("a: [1, 2\nb: }");
    assert!(error.at.line >= 1 && error.message.starts_with("not YAML: "), "{error:?}");
}

#[test]
fn aliases_are_expanded() {
    let node = one("a: &x {k: v}\nb: *x\n");
    assert!(node.get("b").unwrap().get("k").is_some());
}

#[test]
fn an_alias_inside_its_own_anchor_or_from_another_document_is_refused() {
    assert!(refused("a: &x [*x]\n").message.contains("alias"));
    assert!(documents("a: &x 1\n---\nb: *x\n").is_err());
}

#[test]
fn an_alias_bomb_is_refused_quickly() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..30 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert!(refused(&text).message.contains("nodes"), "{}", refused(&text).message);
}

#[test]
fn aliases_cannot_nest_deeper_than_the_text_may() {
    let mut text = String::from("a0: &a0 [x]\n");
    for i in 1..100 {
        text.push_str(&format!("a{i}: &a{i} [*a{}]\n", i - 1));
    }
    assert!(refused(&text).message.contains("deep"));
}

#[test]
fn deep_nesting_is_refused() {
    // The scanner has a bound of its own for brackets that it reads ahead.
    assert!(refused(&"[".repeat(100_000)).message.contains("recursion limit"));
    assert!(refused(&"- ".repeat(100_000)).message.contains("deep"));
    let block: String = (0..200).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert!(refused(&block).message.contains("deep"));
}

#[test]
fn merge_keys_odd_keys_and_odd_tags_are_refused() {
    assert!(refused("a: &x {k: v}\nb:\n  <<: *x\n").message.contains("merge keys"));
    assert!(refused("? [a]\n: b\n").message.contains("key"));
    assert!(refused("a: !custom x\n").message.contains("tag"));
}

#[test]
fn a_core_tag_decides_the_type() {
    let node = one("a: !!str 8080\n");
    let Value::Scalar(scalar) = &node.get("a").unwrap().value else { panic!() };
    assert_eq!(scalar.string(), Some("8080"));
}
