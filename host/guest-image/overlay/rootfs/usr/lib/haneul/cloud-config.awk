# Turns the part of #cloud-config that we know into a shell script:
#   hostname: NAME
#   password: TEXT              (console only: ssh takes keys)
#   ssh_authorized_keys: list
#   runcmd, bootcmd: list of strings or of [flow, lists]
#   write_files: path, permissions, content (plain or | block)
# Other keys are skipped with a line that says so.
function q(t) {
	gsub(/'/, "'\\''", t)
	return "'" t "'"
}
function unquote(t) {
	sub(/^[ \t]+/, "", t)
	sub(/[ \t\r]+$/, "", t)
	if (t ~ /^".*"$/) {
		t = substr(t, 2, length(t) - 2)
		gsub(/\\"/, "\"", t)
		gsub(/\\n/, "\n", t)
		gsub(/\\\\/, "\\", t)
	} else if (t ~ /^'.*'$/) {
		t = substr(t, 2, length(t) - 2)
		gsub(/''/, "'", t)
	} else sub(/[ \t]#.*$/, "", t)
	return t
}
# A flow list such as [ls, "-l", /]; commas inside quotes stay.
function flow(t,    out, item) {
	t = substr(t, 2, length(t) - 2)
	out = ""
	while (match(t, /^[ \t]*("([^"\\]|\\.)*"|'[^']*'|[^,]+)/)) {
		item = substr(t, 1, RLENGTH)
		t = substr(t, RLENGTH + 1)
		sub(/^[ \t]*,/, "", t)
		out = out " " q(unquote(item))
	}
	return out
}
function indent(t) {
	match(t, /^ */)
	return RLENGTH
}
function command(t) {
	sub(/[ \t\r]+$/, "", t)
	if (t ~ /^\[.*\]$/) print flow(t)
	else print unquote(t)
}
function flush_file(    dir) {
	if (path == "") return
	dir = path
	sub(/\/[^\/]*$/, "", dir)
	if (dir != "") print "mkdir -p " q(dir)
	print "printf %s " q(content) " > " q(path)
	if (mode != "") print "chmod " q(mode) " " q(path)
	path = content = mode = ""
}
function file_field(t,    k, v) {
	k = t
	sub(/:.*/, "", k)
	v = t
	sub(/^[^:]*:[ \t]*/, "", v)
	if (k == "path") path = unquote(v)
	else if (k == "permissions") mode = unquote(v)
	else if (k == "content" && v ~ /^[|>]/) start_block("content")
	else if (k == "content") content = unquote(v)
	else print "echo " q("write_files: " k " is not supported here; skipped")
}
function start_block(what) {
	block = what
	block_indent = -1
	text = ""
}
function end_block() {
	if (block == "content") content = text
	else if (block == "command") printf "%s", text
	block = ""
}
BEGIN { print "#!/bin/sh" }
{
	sub(/\r$/, "")
	if (block != "") {
		if ($0 ~ /^[ \t]*$/) {
			text = text "\n"
			next
		}
		if (block_indent < 0 && indent($0) > key_indent) block_indent = indent($0)
		if (block_indent >= 0 && indent($0) >= block_indent) {
			text = text substr($0, block_indent + 1) "\n"
			next
		}
		end_block()
	}
}
/^[ \t]*(#|$)/ || /^---/ { next }
/^[A-Za-z_]/ {
	flush_file()
	section = $0
	sub(/:.*/, "", section)
	rest = $0
	sub(/^[^:]*:[ \t]*/, "", rest)
	if (section == "hostname") print ". /usr/lib/haneul/common; set_hostname " q(unquote(rest))
	else if (section == "password") print "printf '%s\\n' " q("root:" unquote(rest)) " " q("haneul:" unquote(rest)) " | chpasswd"
	else if (section !~ /^(ssh_authorized_keys|runcmd|bootcmd|write_files)$/)
		print "echo " q("cloud-config: " section " is not supported here; skipped")
	next
}
/^[ \t]*- / || /^[ \t]*-$/ {
	item = $0
	sub(/^[ \t]*-[ \t]*/, "", item)
	key_indent = indent($0)
	if (section == "runcmd" || section == "bootcmd") {
		if (item ~ /^[|>]/) start_block("command")
		else command(item)
	} else if (section == "ssh_authorized_keys") {
		print "for h in /root /home/haneul; do mkdir -p $h/.ssh; echo " q(unquote(item)) " >> $h/.ssh/authorized_keys; chmod 700 $h/.ssh; chmod 600 $h/.ssh/authorized_keys; done; chown -R haneul:haneul /home/haneul/.ssh"
	} else if (section == "write_files") {
		flush_file()
		key_indent = indent($0) + 2
		if (item != "") file_field(item)
	}
	next
}
section == "write_files" {
	item = $0
	key_indent = indent($0)
	sub(/^[ \t]+/, "", item)
	file_field(item)
}
END {
	if (block != "") end_block()
	flush_file()
}
