//! Objects by namespace and label.

use std::collections::HashMap;

use crate::config::objects::Object;
use crate::config::objects::meta::Selector;

type Text = Box<str>;

/// Namespace, key, value.
type Pair<'a> = (&'a str, &'a str, &'a str);

/// Finds the objects that hold every pair of a selector, by its rarest pair.
pub(super) struct Index<'a, O> {
    by_pair: HashMap<Pair<'a>, Vec<(&'a O, usize)>>,
}

impl<'a, T> Index<'a, Object<T>> {
    pub(super) fn by_labels(objects: &'a [Object<T>]) -> Self {
        Self::by(objects, |object| object.meta.labels.iter())
    }

    pub(super) fn by<P>(objects: &'a [Object<T>], pairs: impl Fn(&'a Object<T>) -> P) -> Self
    where
        P: Iterator<Item = (&'a Text, &'a Text)>,
    {
        let mut by_pair: HashMap<_, Vec<_>> = HashMap::new();
        for (place, object) in objects.iter().enumerate() {
            for (key, value) in pairs(object) {
                let namespace = &*object.meta.name.namespace;
                by_pair.entry((namespace, &**key, &**value)).or_default().push((object, place));
            }
        }
        Self { by_pair }
    }

    /// An empty selector finds nothing: a pool of everything is a mistake.
    pub(super) fn find(&self, namespace: &str, selector: &Selector) -> Vec<&'a Object<T>> {
        let mut lists: Vec<&[(&'a Object<T>, usize)]> = Vec::new();
        for (key, value) in selector {
            lists.push(self.by_pair.get(&(namespace, &**key, &**value)).map_or(&[], Vec::as_slice));
        }
        lists.sort_by_key(|list| list.len());
        let Some((rarest, others)) = lists.split_first() else { return Vec::new() };
        // Each list is in the order of the objects, so membership is a binary search.
        let in_all = |place: usize| {
            others.iter().all(|list| list.binary_search_by_key(&place, |(_, place)| *place).is_ok())
        };
        rarest.iter().filter(|(_, place)| in_all(*place)).map(|(object, _)| *object).collect()
    }
}
