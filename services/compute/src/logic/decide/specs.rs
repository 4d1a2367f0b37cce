//! What an extra spec of a flavor demands of a value (Nova's "Extra Specs": `>= 5`, `s== x86_64`, `<in> abc`,
//! `<all-in> a b`, `<or> a <or> b`, `<range-in> [ 1 10 ]`; without an operator it is that very string).

/// Whether what a host has is as the spec demands.
pub(super) fn met(spec: &str, have: &str) -> bool {
    let mut words = spec.split_whitespace();
    let operator = words.next().unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    let wanted = rest.join(" ");
    let numbers = || Some((have.trim().parse::<f64>().ok()?, wanted.parse::<f64>().ok()?));
    let compare = |holds: fn(&f64, &f64) -> bool| numbers().is_some_and(|(a, b)| holds(&a, &b));
    match operator {
        // Nova's: at least.
        "=" | ">=" => compare(f64::ge),
        "==" => compare(f64::eq),
        "!=" => compare(f64::ne),
        "<=" => compare(f64::le),
        "s==" => have == wanted,
        "s!=" => have != wanted,
        "s>=" => have >= wanted.as_str(),
        "s>" => have > wanted.as_str(),
        "s<=" => have <= wanted.as_str(),
        "s<" => have < wanted.as_str(),
        "<in>" => have.contains(&wanted),
        "<all-in>" => rest.iter().all(|w| have.contains(w)),
        "<or>" => rest.split(|w| *w == "<or>").any(|one| one.join(" ") == have),
        "<range-in>" => range(&rest, have),
        _ => spec == have,
    }
}

/// `[ 1 10 ]` with the ends, `( 1 10 )` without.
fn range(words: &[&str], have: &str) -> bool {
    let [open, low, high, close] = words else { return false };
    let (Ok(low), Ok(high), Ok(n)) = (low.parse::<f64>(), high.parse::<f64>(), have.trim().parse::<f64>()) else {
        return false;
    };
    let above = match *open {
        "[" => n >= low,
        "(" => n > low,
        _ => false,
    };
    let below = match *close {
        "]" => n <= high,
        ")" => n < high,
        _ => false,
    };
    above && below
}

#[cfg(test)]
mod tests {
    use super::met;

    #[test]
    fn operators() {
        for (spec, have, is) in [
            ("x86_64", "x86_64", true),
            ("x86_64", "x86", false),
            ("= 4", "8", true),
            (">= 4", "3", false),
            ("== 4", "4.0", true),
            ("!= 4", "4", false),
            ("<= 4", "4", true),
            (">= 4", "many", false),
            ("s== gold", "gold", true),
            ("s!= gold", "gold", false),
            ("<in> old", "gold", true),
            ("<all-in> aes avx", "aes,avx2", true),
            ("<all-in> aes vmx", "aes,avx2", false),
            ("<or> gold <or> silver", "silver", true),
            ("<or> gold <or> silver", "lead", false),
            ("<range-in> [ 1 4 ]", "4", true),
            ("<range-in> [ 1 4 )", "4", false),
            ("<range-in> 1 4", "2", false),
        ] {
            assert_eq!(met(spec, have), is, "{spec} of {have}");
        }
    }
}
