//! The shape of a JSON document: its fields and their types, without the values.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// One line for each field: its path and its types.
pub fn shape(value: &Value) -> String {
    let mut fields = BTreeMap::new();
    collect("", value, &mut fields);
    let lines = fields.iter().map(|(path, types)| {
        let types: Vec<&str> = types.iter().map(String::as_str).collect();
        format!("{path}: {}\n", types.join(" or "))
    });
    lines.collect()
}

/// The names of all fields, and the values of those that name a kind.
pub fn words(value: &Value) -> BTreeSet<String> {
    let mut fields = BTreeMap::new();
    collect("", value, &mut fields);
    let name = |path: &String| {
        path.rsplit('.')
            .next()
            .unwrap()
            .trim_end_matches("[]")
            .to_owned()
    };
    fields
        .keys()
        .map(name)
        .filter(|name| !name.is_empty())
        .collect()
}

fn collect(path: &str, value: &Value, fields: &mut BTreeMap<String, BTreeSet<String>>) {
    let kind = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(_) => "number".to_owned(),
        Value::String(text)
            if matches!(
                path,
                "type" | "machines[].status" | "operations[].status" | "status"
            ) =>
        {
            format!("{text:?}")
        }
        Value::String(_) => "string".to_owned(),
        Value::Array(items) => {
            items
                .iter()
                .for_each(|item| collect(&format!("{path}[]"), item, fields));
            "array".to_owned()
        }
        Value::Object(members) => {
            for (name, member) in members {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                collect(&path, member, fields);
            }
            return;
        }
    };
    fields.entry(path.to_owned()).or_default().insert(kind);
}
