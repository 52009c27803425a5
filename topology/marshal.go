package topology

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// Marshal returns the topology in YAML, traces included. Parse reads the same Topology back, if it is one that can be planned;
// a Topology that cannot, or that makes more text than Parse reads, is an error, Errors.
func (t *Topology) Marshal() ([]byte, error) {
	if _, err := t.Plan(); err != nil {
		return nil, err
	}
	// Traces of files may be shared by many links, so that writing all of them might need more memory than there is.
	entries := 0
	for i := range t.Links {
		entries += t.Links[i].traced()
	}
	e := &encoder{}
	if entries <= maxCommas {
		topologyForm().write(e, *t)
	}
	if entries > maxCommas || e.commas > maxCommas || e.b.Len() > maxInput {
		var p problems
		p.add(BadValue, "", "with its traces written out, the topology has more than the %d bytes or %d entries that a file may have", maxInput, maxCommas)
		return nil, p.found
	}
	return e.b.Bytes(), nil
}

// traced is how many entries the link's traces have.
func (l *Link) traced() int { return len(l.RateTrace) + len(l.LossTrace) }

// encoder writes block style down to the entries' own keys, and flow style below.
type encoder struct {
	b      bytes.Buffer
	commas int
	depth  int  // of collections around
	entry  bool // directly after "- "
	value  bool // directly after "key:"
	json   bool // all in one line, and as JSON wants it
}

// flowDepth is the depth from which collections are written in one line: topology, its lists, their entries are not.
const flowDepth = 3

func (e *encoder) indent() { e.b.WriteString(strings.Repeat("  ", max(0, e.depth-1))) }

// put writes what belongs in the same line as its key.
func (e *encoder) put(s string) {
	if e.value {
		e.b.WriteByte(' ')
		e.value = false
	}
	e.b.WriteString(s)
}

func (e *encoder) object(fields func(put func(key string, write func()))) {
	if e.depth >= flowDepth || e.value {
		e.inLine("{", "}", func(sep func()) {
			fields(func(key string, write func()) {
				sep()
				if e.json {
					key = strconv.Quote(key)
				}
				e.put(key + ":")
				e.value = true
				write()
			})
		})
		return
	}
	e.depth++
	fields(func(key string, write func()) {
		if !e.entry {
			e.indent()
		}
		e.put(key + ":")
		e.entry, e.value = false, true
		write()
		if !bytes.HasSuffix(e.b.Bytes(), []byte("\n")) {
			e.b.WriteByte('\n')
		}
	})
	e.depth--
}

func (e *encoder) list(entries func(put func(write func()))) {
	if e.depth >= flowDepth-1 {
		e.inLine("[", "]", func(sep func()) {
			entries(func(write func()) {
				sep()
				write()
			})
		})
		return
	}
	e.value = false
	e.b.WriteByte('\n')
	e.depth++
	entries(func(write func()) {
		e.indent()
		e.put("- ")
		e.entry = true
		write()
	})
	e.depth--
}

// inLine writes a flow collection. Everything within is in the same line.
func (e *encoder) inLine(begin, end string, write func(sep func())) {
	depth, first := e.depth, true
	e.depth = flowDepth
	e.put(begin)
	write(func() {
		if !first {
			e.put(", ")
			e.commas++
		}
		first = false
	})
	e.put(end)
	e.depth = depth
}

// plain writes a text that no reader of YAML takes for anything else. In JSON it is a number or a truth value, if it is one.
func (e *encoder) plain(s string) {
	if e.json && !json.Valid([]byte(s)) {
		if n, err := ParseCount(s); err == nil { // 2^30
			s = strconv.FormatUint(n, 10)
		} else {
			e.text(s)
			return
		}
	}
	e.put(s)
}

// text writes a string, in quotes unless it is certainly one without: letters first, and nothing after them that means
// something to YAML. Digits first would do for names, were it not for "1e3" and "0x1f".
func (e *encoder) text(s string) {
	if !e.json && plainText(s) {
		e.put(s)
		return
	}
	var b bytes.Buffer
	quoted := json.NewEncoder(&b)
	quoted.SetEscapeHTML(false)
	quoted.Encode(s) // a string always encodes
	e.put(strings.TrimSuffix(b.String(), "\n"))
}

func plainText(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		inside := strings.IndexByte("+-./_", c) >= 0 || c == ' ' && i < len(s)-1
		if !letter && (i == 0 || !digit && !inside) {
			return false
		}
	}
	return !slices.Contains([]string{"", "true", "false", "yes", "no", "on", "off", "null", "y", "n"}, strings.ToLower(s))
}
