# Flattens one JSON document: a line "path<TAB>value" for each scalar, so .public_keys.mykey<TAB>ssh-ed25519 AAAA...
# A value of several lines gives several lines with the same path. A proper tokenizer, because a user's own
# "meta" may hold keys such as "hostname" that must not be taken for the real ones.
function fail() {
	bad = 1
	exit 1
}
function skip() {
	if (match(s, /^[ \t\r\n]+/)) s = substr(s, RLENGTH + 1)
}
function hex(d,    v, k) {
	v = 0
	for (k = 1; k <= length(d); k++) v = v * 16 + index("0123456789abcdef", tolower(substr(d, k, 1))) - 1
	return v
}
function str(    t, out, c, n) {
	if (!match(s, /^"([^"\\]|\\.)*"/)) fail()
	t = substr(s, 2, RLENGTH - 2)
	s = substr(s, RLENGTH + 1)
	if (!index(t, "\\")) return t
	out = ""
	while (n = index(t, "\\")) {
		out = out substr(t, 1, n - 1)
		c = substr(t, n + 1, 1)
		t = substr(t, n + 2)
		if (c == "n") out = out "\n"
		else if (c == "t") out = out "\t"
		else if (c == "r") out = out "\r"
		else if (c == "b" || c == "f") out = out " "
		else if (c == "u") {
			n = hex(substr(t, 1, 4))
			t = substr(t, 5)
			out = out (n > 0 && n < 128 ? sprintf("%c", n) : "?")
		} else out = out c
	}
	return out t
}
function emit(path, v,    parts, count, k) {
	count = split(v, parts, "\n")
	for (k = 1; k <= count; k++)
		if (parts[k] != "") print path "\t" parts[k]
}
function value(path, depth,    c, key, n) {
	if (depth > 40) fail()
	skip()
	c = substr(s, 1, 1)
	if (c == "{") {
		s = substr(s, 2)
		skip()
		if (substr(s, 1, 1) == "}") {
			s = substr(s, 2)
			return
		}
		do {
			skip()
			key = str()
			skip()
			if (substr(s, 1, 1) != ":") fail()
			s = substr(s, 2)
			value(path "." key, depth + 1)
			skip()
			c = substr(s, 1, 1)
			s = substr(s, 2)
		} while (c == ",")
		if (c != "}") fail()
	} else if (c == "[") {
		s = substr(s, 2)
		skip()
		if (substr(s, 1, 1) == "]") {
			s = substr(s, 2)
			return
		}
		n = 0
		do {
			value(path "[" n++ "]", depth + 1)
			skip()
			c = substr(s, 1, 1)
			s = substr(s, 2)
		} while (c == ",")
		if (c != "]") fail()
	} else if (c == "\"") emit(path, str())
	else {
		if (!match(s, /^[-+.0-9A-Za-z]+/)) fail()
		key = substr(s, 1, RLENGTH)
		s = substr(s, RLENGTH + 1)
		if (key != "null") emit(path, key)
	}
}
{ s = s $0 "\n" }
END {
	if (!bad) value("", 0)
	exit bad
}
