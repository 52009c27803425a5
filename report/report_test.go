package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"
)

func decode(t *testing.T, r Result) map[string]any {
	t.Helper()
	var b strings.Builder
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(b.String()), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// at follows a path of keys; a list stands for its first element.
func at(v any, path string) (any, bool) {
	for _, k := range strings.Split(path, ".") {
		if l, ok := v.([]any); ok {
			if len(l) == 0 {
				return nil, false
			}
			v = l[0]
		}
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[k]; !ok {
			return nil, false
		}
	}
	return v, true
}

func TestJSONKeys(t *testing.T) {
	t.Parallel()
	m := decode(t, sample())
	for _, path := range []string{
		"topology", "seed", "kernel", "dataplane", "shaper", "exchange.suite", "exchange.ms", "exchange.bytes", "traffic.from",
		"traffic.to", "traffic.proto", "traffic.streams", "traffic.bits_per_second", "traffic.sent", "traffic.lost",
		"traffic.reordered", "traffic.latency_us.p50", "traffic.latency_us.p99", "rekeys.trigger", "rekeys.at_ms", "rekeys.lost",
		"cpu_seconds.h1", "tunnels.exchange.steps.ms", "tunnels.sas.blocks", "tunnels.drops.reasons", "plaintext_watch.plaintext", "xfrm_stat.d2.XfrmInNoStates",
		"checks.ok", "verdict", "warnings", "machine.cpus", "version", "started", "duration_ms", "command",
	} {
		if _, ok := at(m, path); !ok {
			t.Errorf("no %s", path)
		}
	}
	if _, ok := m["Picture"]; ok {
		t.Error("the picture is in the JSON")
	}
	if m["verdict"] != Fail {
		t.Errorf("verdict %v", m["verdict"])
	}
	// The first tunnel's exchange is the top level's.
	top, _ := at(m, "exchange")
	first, _ := at(m, "tunnels.exchange")
	if !reflect.DeepEqual(top, first) {
		t.Errorf("exchange is %v, of the first tunnel %v", top, first)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(b) {
		t.Errorf("%s became %s", b, again)
	}
}

// TestJSONLists has lists where there is nothing, not null.
func TestJSONLists(t *testing.T) {
	t.Parallel()
	m := decode(t, Result{})
	for _, k := range []string{"traffic", "rekeys", "tunnels", "checks", "warnings", "command", "plaintext_watch"} {
		if _, ok := m[k].([]any); !ok {
			t.Errorf("%s is %v", k, m[k])
		}
	}
}

// TestFinite gives every number that can be none a value that is none, and reads numbers back.
func TestFinite(t *testing.T) {
	t.Parallel()
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		r := sample()
		n := poison(reflect.ValueOf(&r).Elem(), f)
		if n < 30 {
			t.Fatalf("only %d numbers were poisoned", n)
		}
		before := r.Traffic[0].BitsPerSecond
		decode(t, r)
		if got := r.Traffic[0].BitsPerSecond; !(math.IsNaN(got) && math.IsNaN(before)) && got != before {
			t.Error("writing changed the result itself")
		}
		for name, text := range written(t, r) {
			for _, bad := range []string{"NaN", "Inf", "%!"} {
				if strings.Contains(text, bad) {
					t.Errorf("%s has %q", name, bad)
				}
			}
		}
	}
}

// poison puts f into every float64 below v and counts them.
func poison(v reflect.Value, f float64) int {
	n := 0
	switch v.Kind() {
	case reflect.Float64:
		v.SetFloat(f)
		return 1
	case reflect.Pointer:
		if !v.IsNil() {
			n += poison(v.Elem(), f)
		}
	case reflect.Slice:
		for i := range v.Len() {
			n += poison(v.Index(i), f)
		}
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Float64 {
			for _, k := range v.MapKeys() {
				v.SetMapIndex(k, reflect.ValueOf(f))
				n++
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				n += poison(v.Field(i), f)
			}
		}
	}
	return n
}

// written gives each form of a result.
func written(t testing.TB, r Result) map[string]string {
	t.Helper()
	var j, x, h, p strings.Builder
	for _, err := range []error{r.WriteJSON(&j), r.WriteJUnit(&x), r.WriteHTML(&h), r.WriteText(&p, "out")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return map[string]string{"json": j.String(), "junit": x.String(), "html": h.String(), "text": p.String()}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		checks []Check
		want   string
	}{
		{nil, Fail},
		{[]Check{{OK: true}}, Pass},
		{[]Check{{OK: true}, {OK: false}, {OK: true}}, Fail},
	} {
		if got := (Result{Checks: c.checks}).Verdict(); got != c.want {
			t.Errorf("%v: %s, want %s", c.checks, got, c.want)
		}
	}
}

func TestTextEnds(t *testing.T) {
	t.Parallel()
	for name, r := range extreme() {
		lines := strings.Split(strings.TrimSpace(written(t, r)["text"]), "\n")
		if len(lines) < 2 || !strings.HasPrefix(lines[len(lines)-2], r.Verdict()) || !strings.HasSuffix(lines[len(lines)-1], "out") {
			t.Errorf("%s does not end with the verdict and the directory: %q", name, lines)
		}
		if len(lines) > 100 {
			t.Errorf("%s is %d lines long", name, len(lines))
		}
	}
	hostile := sample()
	hostile.Topology, hostile.Warnings = "a\x1b[31mb\r\n\tc", []string{"\x1b]0;title\x07"}
	hostile.Checks[0].Detail, hostile.Traffic[0].From = "\u009b2J", "\u202eevil"
	if text := written(t, hostile)["text"]; strings.ContainsAny(text, "\x1b\x07\u009b\u202e\r\t") {
		t.Errorf("control characters in %q", text)
	}
}

// TestJUnit checks the elements, attributes and their order that the Jenkins schema asks for, and that the sums are right.
func TestJUnit(t *testing.T) {
	t.Parallel()
	for name, r := range extreme() {
		var doc junitSuites
		text := written(t, r)["junit"]
		if err := xml.Unmarshal([]byte(text), &doc); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		s := doc.Suites[0]
		failures := 0
		for i, c := range s.Cases {
			if (c.Failure == nil) != r.Checks[i].OK || c.Name != r.Checks[i].Name || c.Class == "" {
				t.Errorf("%s: check %+v became %+v", name, r.Checks[i], c)
			}
			if c.Failure != nil {
				failures++
			}
		}
		if s.Tests != len(r.Checks) || len(s.Cases) != len(r.Checks) || s.Failures != failures || doc.Failures != failures || doc.Tests != s.Tests {
			t.Errorf("%s: %d tests, %d failures, %d cases", name, s.Tests, s.Failures, len(s.Cases))
		}
		allowed := map[string][]string{
			"testsuites": {"testsuite"}, "testsuite": {"properties", "testcase", "system-out", "system-err"}, "properties": {"property"},
			"testcase": {"skipped", "error", "failure", "system-out", "system-err"}, "property": {}, "failure": {}, "system-out": {}, "system-err": {},
		}
		d := xml.NewDecoder(strings.NewReader(text))
		var stack []string
		var last []int
		for {
			tok, err := d.Token()
			if err != nil {
				break
			}
			switch e := tok.(type) {
			case xml.StartElement:
				if n := len(stack); n > 0 {
					rank := -1
					for i, k := range allowed[stack[n-1]] {
						if k == e.Name.Local {
							rank = i
						}
					}
					if rank < last[n-1] {
						t.Errorf("%s: <%s> is not allowed here in <%s>", name, e.Name.Local, stack[n-1])
					}
					last[n-1] = rank
				}
				stack, last = append(stack, e.Name.Local), append(last, 0)
			case xml.EndElement:
				stack, last = stack[:len(stack)-1], last[:len(last)-1]
			}
		}
	}
}

func TestWriteDir(t *testing.T) {
	t.Parallel()
	names := func(dir string) []string {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			out = append(out, e.Name())
		}
		return out
	}
	want := []string{HTMLFile, JUnitFile, JSONFile}
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b")
	for range 2 { // the second over the first
		if err := sample().WriteDir(dir); err != nil {
			t.Fatal(err)
		}
		if got := names(dir); !reflect.DeepEqual(got, want) {
			t.Fatalf("%v", got)
		}
	}
	for _, bad := range []struct{ file, text string }{{"thesis.tex", "x"}, {JSONFile, "{}"}, {JSONFile, "not JSON"}, {HTMLFile, "<p>"}} {
		dir := t.TempDir()
		path := filepath.Join(dir, bad.file)
		if err := os.WriteFile(path, []byte(bad.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := sample().WriteDir(dir); !errors.Is(err, ErrForeign) {
			t.Errorf("%+v: %v", bad, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != bad.text || len(names(dir)) != 1 {
			t.Errorf("%+v: changed to %q, %v", bad, b, names(dir))
		}
	}
	file := filepath.Join(top, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := sample().WriteDir(file); err == nil {
		t.Error("a file was taken for a directory")
	}
	// A file that cannot be replaced leaves nothing behind.
	blocked := filepath.Join(top, "blocked")
	if err := sample().WriteDir(blocked); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(blocked, JUnitFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(blocked, JUnitFile, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := sample().WriteDir(blocked); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if got := names(blocked); !reflect.DeepEqual(got, want) {
		t.Errorf("left behind: %v", got)
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ got, want string }{
		{Rate(0), "0 bit/s"}, {Rate(999), "999 bit/s"}, {Rate(2.104e9), "2.10 Gbit/s"}, {Rate(math.NaN()), "0 bit/s"},
		{Rate(999.4), "999 bit/s"}, {Rate(999.6), "1.00 kbit/s"}, {Rate(999_600), "1.00 Mbit/s"}, {Rate(999_499), "999 kbit/s"}, {Rate(9.996e6), "10.0 Mbit/s"},
		{Rate(99.96e6), "100 Mbit/s"}, {Rate(999.7e6), "1.00 Gbit/s"}, {millis(0.9996), "1.00 ms"}, {millis(999.6), "1.00 s"}, {millis(0.99949), "999 µs"},
		{size(9_999_600), "10.0 MB"}, {percent(0.99996), "100%"}, {percent(0.0099996), "1.00%"},
		{millis(0.029), "29.0 µs"}, {millis(9.83), "9.83 ms"}, {millis(6812), "6.81 s"}, {micros(655.1), "655 µs"},
		{count(0), "0"}, {count(999), "999"}, {count(1234567), "1\u202f234\u202f567"},
		{size(9999), "9\u202f999 B"}, {size(12345), "12.3 kB"},
		{shorten("abcdef", 6), "abcdef"}, {shorten("abcdefgh", 5), "ab…gh"}, {shorten("äöüßäöü", 5), "äö…öü"},
		{shell([]string{"pqlab", "run", "a b", "", "it's", "$(x)"}), `pqlab run 'a b' '' 'it'\''s' '$(x)'`},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestTicks(t *testing.T) {
	t.Parallel()
	for _, most := range []float64{0, 1e-9, 0.3, 1, 1.01, 2.5, 7, 99.9, 100, 12345, 1e15, math.NaN(), math.Inf(1)} {
		for _, n := range []int{5, 10} {
			got := ticks(most, n)
			if len(got) < 2 || len(got) > 2*n+2 || got[0] != 0 {
				t.Fatalf("up to %v: %v", most, got)
			}
			if last := got[len(got)-1]; num(most) > 0 && (last < most*0.99999 || last > most*2.6) {
				t.Errorf("up to %v: ends at %v", most, last)
			}
			for i := 1; i < len(got); i++ {
				if got[i] <= got[i-1] || label(got[i], got[1]) == label(got[i-1], got[1]) && most < 1e6 && most > 1e-5 {
					t.Errorf("up to %v: %v", most, got)
				}
			}
		}
	}
}

// Bytes of TCP are never taken for packets, and what a reader sees of a flow names its relays.
func TestUnits(t *testing.T) {
	t.Parallel()
	r := Result{Traffic: []Flow{
		{From: "a", To: "b", Via: []string{"r1", "r2"}, Proto: "tcp", Unit: Bytes, Sent: 318_000_000, Received: 318_000_000, Latency: &Latency{P50: 7, P99: 9000}},
	}}
	find := func(name string) (figure, bool) {
		for _, f := range figures(r) {
			if f.Name == name {
				return f, true
			}
		}
		return figure{}, false
	}
	if f, ok := find("packets lost"); ok {
		t.Errorf("packets of TCP: %+v", f)
	}
	w := written(t, r)
	for _, format := range []string{"text", "html"} {
		if !strings.Contains(w[format], "318 MB") || strings.Contains(w[format], count(318_000_000)) || !strings.Contains(w[format], "via r1, r2") {
			t.Errorf("%s: %s", format, w[format])
		}
		if strings.Contains(w[format], "dataplane") {
			t.Errorf("%s: a dataplane of a lab without tunnels: %s", format, w[format])
		}
	}
	r.Traffic = append(r.Traffic, Flow{From: "c", To: "d", Proto: "udp", Unit: Packets, Sent: 1000, Lost: 10, Latency: &Latency{P50: 5, P99: 20}})
	if f, ok := find("packets lost"); !ok || f.Value != "10" || !strings.Contains(f.Note, count(1000)) {
		t.Errorf("%+v", f)
	}
	if f, ok := find("median latency"); !ok || f.Value != micros(7) || !strings.Contains(f.Note, "a → b via r1, r2") {
		t.Errorf("%+v", f)
	}
}

// A flow that was not delivered is told with what was asked of it and the reason, as such and not as a rate, and is not what
// the lab is praised for.
func TestUndelivered(t *testing.T) {
	t.Parallel()
	dead := Flow{
		From: "c", To: "d", Proto: "udp", Unit: Packets, BitsPerSecond: 7e6, Sent: 412, Lost: 412, Undelivered: "no route to <host>",
		Asked: Asked{BitsPerSecond: 3.5e6, FrameSize: 1234, Duration: 1500},
	}
	well := Flow{From: "a", To: "b", Proto: "tcp", Unit: Bytes, BitsPerSecond: 2e6, Sent: 5000, Received: 5000, Asked: Asked{Duration: 5000}}
	for _, flows := range [][]Flow{{dead}, {dead, well}, {well, dead}} {
		r := Result{Traffic: flows}
		w := written(t, r)
		for format, parts := range map[string][]string{
			"text": {"not delivered"},
			"html": {"not delivered", "no route to &lt;host&gt;", Rate(3.5e6) + ", frames of 1234 bytes, for " + millis(1500)},
		} {
			for _, want := range parts {
				if !strings.Contains(w[format], want) {
					t.Errorf("%s does not tell %q: %s", format, want, w[format])
				}
			}
			if strings.Contains(w[format], Rate(7e6)) {
				t.Errorf("%s tells a rate of what was not delivered", format)
			}
		}
		if len(flows) == 2 && figures(r)[0].Value != Rate(2e6) {
			t.Errorf("throughput %+v", figures(r)[0])
		}
		m := decode(t, Result{Traffic: []Flow{dead}})
		for path, want := range map[string]any{
			"traffic.undelivered": "no route to <host>", "traffic.asked.bits_per_second": 3.5e6, "traffic.asked.frame_size": 1234.0, "traffic.asked.duration_ms": 1500.0,
		} {
			if got, _ := at(m, path); got != want {
				t.Errorf("%s is %v, want %v", path, got, want)
			}
		}
	}
	if _, ok := at(decode(t, Result{Traffic: []Flow{well}}), "traffic.undelivered"); ok {
		t.Error("what was delivered has a reason why not")
	}
}

// Captures are removed only if pqlab wrote them, and a directory with any other is foreign.
func TestRemoveCaptures(t *testing.T) {
	t.Parallel()
	pcapng := func(application string) string {
		var b strings.Builder
		w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.DefaultNgInterface, pcapgo.NgWriterOptions{
			SectionInfo: pcapgo.NgSectionInfo{OS: "linux", Application: application, Comment: "pqlab " + strings.Repeat("x", 32)},
		})
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	for name, tt := range map[string]struct {
		file, text string
		ours       bool
	}{
		"ours":            {"a-b.pcapng", pcapng("pqlab"), true},
		"killed":          {"a-b.pcapng", "", true},
		"another's":       {"a-b.pcapng", pcapng("dumpcap"), false},
		"short":           {"a-b.pcapng", "\n\r\r\n", false},
		"only mentioned":  {"a-b.pcapng", "notes: \x04\x00\x05\x00pqlab", false},
		"of another kind": {"a-b.pcap", pcapng("pqlab"), false},
	} {
		dir := filepath.Join(t.TempDir(), "captures")
		path := filepath.Join(dir, tt.file)
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(path, []byte(tt.text), 0o644)); err != nil {
			t.Fatal(err)
		}
		if err := CheckDir(dir); errors.Is(err, ErrForeign) == tt.ours || err != nil && strings.Contains(err.Error(), "report") {
			t.Errorf("%s: %v", name, err)
		}
		if err := RemoveCaptures(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) != tt.ours {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := RemoveCaptures(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("of a directory that is not there")
	}
}

// What cannot be made is told before, whatever the permissions say, and nothing is left of trying.
func TestCheckDir(t *testing.T) {
	top := t.TempDir()
	hanging, loop, empty, gone := filepath.Join(top, "hanging"), filepath.Join(top, "loop"), filepath.Join(top, "empty"), filepath.Join(top, "gone")
	if err := errors.Join(os.Symlink("nowhere", hanging), os.Symlink("loop", loop), os.Mkdir(empty, 0o755), os.Mkdir(gone, 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{hanging, filepath.Join(hanging, "x"), loop, filepath.Join(loop, "x", "y")} {
		if err := CheckDir(dir); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	for _, dir := range []string{empty, filepath.Join(empty, "x", "y")} {
		if err := CheckDir(dir); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("left %v, %v", left, err)
	}
	t.Chdir(gone)
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	if err := CheckDir("out"); err == nil {
		t.Error("a directory below one that was deleted")
	}
}

// Where packets of replaced SAs went is told below the rekeys, before anything else.
func TestRekeyNote(t *testing.T) {
	t.Parallel()
	r := sample()
	r.RekeyNote = "what became of them"
	texts := written(t, r)
	for _, form := range []string{"text", "html"} {
		_, after, found := strings.Cut(texts[form], r.RekeyNote)
		if !found || form == "text" && !strings.HasPrefix(after, "\nwarning:") {
			t.Errorf("%s: %v, %q", form, found, after)
		}
	}
}
