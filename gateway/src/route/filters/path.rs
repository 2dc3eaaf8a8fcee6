//! Full and prefix replacement of a path, as the Gateway API's HTTPPathModifier has it.

use std::borrow::Cow;

use crate::snapshot::{PathMatch, PathRewrite};

/// A prefix is only replaced under a prefix match; other paths stay as they are.
pub(super) fn rewritten<'p>(rewrite: &'p PathRewrite, matched: &PathMatch, path: &'p str) -> Cow<'p, str> {
    match (rewrite, matched) {
        (PathRewrite::Full(full), _) => Cow::Borrowed(full),
        (PathRewrite::Prefix(replacement), PathMatch::Prefix(prefix)) => match path.strip_prefix(&**prefix) {
            Some(rest) => replaced(replacement, rest),
            None => Cow::Borrowed(path),
        },
        (PathRewrite::Prefix(_), _) => Cow::Borrowed(path),
    }
}

/// `rest` is empty or starts with a slash; a trailing slash of the replacement would double it.
fn replaced<'p>(replacement: &str, rest: &str) -> Cow<'p, str> {
    let replacement = replacement.trim_end_matches('/');
    if replacement.is_empty() && rest.is_empty() {
        return Cow::Borrowed("/");
    }
    Cow::Owned([replacement, rest].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replace(path: &str, prefix: &str, replacement: &str) -> String {
        // Snapshots keep prefixes without their trailing slash.
        let matched = PathMatch::Prefix(prefix.trim_end_matches('/').into());
        rewritten(&PathRewrite::Prefix(replacement.into()), &matched, path).into_owned()
    }

    /// The table at HTTPPathModifier.replacePrefixMatch.
    #[test]
    fn a_prefix_is_replaced_as_the_gateway_apis_table_says() {
        for (path, prefix, replacement, modified) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
        ] {
            assert_eq!(replace(path, prefix, replacement), modified, "{path} {prefix} {replacement}");
        }
    }

    #[test]
    fn the_root_prefix_gets_a_prefix_in_front() {
        assert_eq!(replace("/v1/models", "/", "/openai"), "/openai/v1/models");
        assert_eq!(replace("/", "/", "/openai"), "/openai/");
        assert_eq!(replace("/v1", "/", "/"), "/v1");
    }

    #[test]
    fn only_prefix_matches_have_a_prefix_to_replace() {
        let rewrite = PathRewrite::Prefix("/xyz".into());
        let exact = PathMatch::Exact("/foo".into());
        assert_eq!(rewritten(&rewrite, &exact, "/foo"), "/foo");
        assert_eq!(rewritten(&PathRewrite::Full("/all".into()), &exact, "/foo"), "/all");
    }

    proptest! {
        #[test]
        fn the_elements_are_the_replacements_then_the_rest(
            prefix in "(/[a-c]{1,2}){0,3}/?",
            replacement in "((/[x-z]){1,3})?/?",
            rest in "(/[d-f]{1,2}){0,3}/?",
        ) {
            let path = format!("{}{rest}", prefix.trim_end_matches('/'));
            prop_assume!(path.starts_with('/'));
            let modified = replace(&path, &prefix, &replacement);
            let elements = |path: &str| -> Vec<String> {
                path.split('/').filter(|element| !element.is_empty()).map(str::to_owned).collect()
            };
            prop_assert_eq!(elements(&modified), [elements(&replacement), elements(&rest)].concat());
            prop_assert!(modified.starts_with('/') && !modified.contains("//"), "{}", modified);
        }
    }
}
