package links

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/links/medium"
	"pqlab/topology"
)

// bad is a shape by which everything befalls packets that chance decides.
func bad() topology.Shape {
	return topology.Shape{
		Delay: 5 * time.Millisecond, Jitter: 2 * time.Millisecond, Unordered: true, Loss: 0.1, Duplication: 0.1, Reordering: 0.05, Corruption: 0.05,
	}
}

// traceOf reads what was written of a link.
func traceOf(t *testing.T, dir, link string) (medium.Header, map[string][]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, link+fatesExt))
	if err != nil {
		t.Fatal(err)
	}
	trace, err := medium.ReadTrace(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{} // by port and number
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[medium.ShapeLine:] {
		f := strings.Fields(line)
		all[f[0]+" "+f[1]] = append(all[f[0]+" "+f[1]], strings.Join(f[2:], " "))
	}
	return trace.Header, all
}

// A link's fates are recorded, and of another seed the same packets meet the same ones: loss, delay, copies and bits.
func TestReplayedFates(t *testing.T) {
	need(t, "wire")
	dir := t.TempDir()
	const n = 300
	send := func(f Fates, seed uint64, packets int) (History, error) {
		t.Helper()
		link := shaped(bad())
		link.Seed = seed
		shaper, err := f.choose([]topology.PlannedLink{link}, "", without())
		if err != nil {
			t.Fatal(err)
		}
		made, a, b := pairOf(t, link, shaper)
		p := newProber(t, made, a, b, 100)
		p.pace(packets, time.Millisecond)
		for deadline := time.Now().Add(2 * time.Minute); made.State().Wire[0].Fates[medium.Delivered] < uint64(packets)*3/4; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%+v", made.State().Wire[0].Counters)
			}
		}
		p.arrivals(200 * time.Millisecond)
		if f.Replay != "" {
			before := made.State().Shapes
			err := made.Set(func(s [2]topology.Shape) ([2]topology.Shape, error) { s[0].Loss = 0.5; return s, nil })
			if !errors.Is(err, ErrReplay) || !reflect.DeepEqual(before, made.State().Shapes) {
				t.Errorf("set: %v", err)
			}
		}
		h, ok, err := made.EndHistory()
		if !ok {
			t.Fatal("no history")
		}
		again, _, errAgain := made.EndHistory()
		if again != h || errAgain != err {
			t.Errorf("a second time %+v, %v", again, errAgain)
		}
		if err := made.Close(); err != nil {
			t.Error(err)
		}
		return h, err
	}
	first, second, other := filepath.Join(dir, "1"), filepath.Join(dir, "new", "2"), filepath.Join(dir, "3")
	h, err := send(Fates{Record: first}, 7, n)
	if err != nil || h.Replayed || h.File != filepath.Join(first, "a-b.fates") || h.Sides[0].Recorded < n*9/10 {
		t.Errorf("%+v, %v", h, err)
	}
	head, was := traceOf(t, first, "a-b")
	if want := (medium.Header{Link: "a-b", Ends: []string{"a", "b"}, Seed: 7, Shape: bad().String()}); !reflect.DeepEqual(head, want) {
		t.Errorf("%+v, want %+v", head, want)
	}
	h, err = send(Fates{Record: second, Replay: first}, 8, 2*n)
	known := h.Sides[0].Traced
	if s := h.Sides[0]; err != nil || !h.Replayed || known == 0 || s.Met != 2*n || s.Beyond != 2*n-known {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := send(Fates{Record: other}, 8, n); err != nil {
		t.Error(err)
	}
	head, is := traceOf(t, second, "a-b")
	if head.Seed != 8 {
		t.Errorf("%+v", head)
	}
	_, control := traceOf(t, other, "a-b")
	same := func(traces map[string][]string) (equal, compared int) {
		for key, was := range was {
			if fates, ok := traces[key]; ok {
				if compared++; reflect.DeepEqual(fates, was) {
					equal++
				}
			}
		}
		return equal, compared
	}
	if equal, compared := same(is); equal != compared || compared < n*9/10 {
		t.Errorf("of %d packets %d met the fates of the trace", compared, equal)
	}
	if equal, compared := same(control); equal > compared/2 {
		t.Errorf("of another seed %d of %d packets have the same fates", equal, compared)
	}
	for _, dir := range []string{first, second, other} { // one file, and nothing beside it
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%s: %v, %v", dir, entries, err)
		}
	}
}

// A link that is closed, or abandoned, completes its trace.
func TestFatesWithoutEnd(t *testing.T) {
	need(t, "wire")
	for name, leave := range map[string]func(*Link) error{"close": (*Link).Close, "abandon": (*Link).Abandon} {
		dir := filepath.Join(t.TempDir(), "traces")
		link := shaped(topology.Shape{Delay: time.Millisecond})
		shaper, err := Fates{Record: dir}.choose([]topology.PlannedLink{link}, "wire", without())
		if err != nil {
			t.Fatal(err)
		}
		made, _, _ := pairOf(t, link, shaper)
		if err := leave(made); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if head, _ := traceOf(t, dir, "a-b"); head.Link != "a-b" {
			t.Errorf("%s: %+v", name, head)
		}
	}
}

// What cannot be recorded or replayed is refused before anything is made, and says where it is wrong.
func TestFatesRefused(t *testing.T) {
	t.Parallel()
	need(t, "wire")
	dir := t.TempDir()
	put := func(name string, files ...string) string {
		d := filepath.Join(dir, name)
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(files); i += 2 {
			if err := os.WriteFile(filepath.Join(d, files[i]), []byte(files[i+1]), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	link, plain, air := shaped(topology.Shape{Delay: time.Millisecond}), shaped(topology.Shape{}), shaped(topology.Shape{})
	plain.Name, air.Name, air.WiFi = "plain", "air", &topology.Station{}
	good := headerOf(link).String() + "0 0 98 delivered 1000000 1 0\n"
	traces := put("good", "a-b.fates", good)
	only := []topology.PlannedLink{link}
	for name, tt := range map[string]struct {
		links []topology.PlannedLink
		want  string
		fates Fates
		says  []string // empty: it is not refused
	}{
		"good":             {[]topology.PlannedLink{link, plain}, "auto", Fates{Record: put("old", "a-b.fates", "old"), Replay: traces}, nil},
		"new directory":    {only, "wire", Fates{Record: filepath.Join(dir, "no", "such")}, nil},
		"tbf":              {only, "tbf", Fates{Record: dir}, []string{"--shaper=tbf", "--shaper=wire"}},
		"netem":            {only, "netem", Fates{Replay: traces}, []string{"--shaper=netem", "--shaper=wire"}},
		"none":             {only, "none", Fates{Replay: traces}, []string{"--shaper=none", "--shaper=wire"}},
		"no shape":         {[]topology.PlannedLink{plain}, "", Fates{Record: dir}, []string{"shape"}},
		"airtime":          {[]topology.PlannedLink{link, air}, "", Fates{Record: dir}, []string{"link air", "airtime"}},
		"foreign":          {only, "", Fates{Record: put("foreign", "notes.txt", "")}, []string{"notes.txt"}},
		"other's trace":    {only, "", Fates{Record: put("others", "c-d.fates", "")}, []string{"c-d.fates"}},
		"no directory":     {only, "", Fates{Record: filepath.Join(traces, "a-b.fates")}, []string{"a-b.fates"}},
		"same directory":   {only, "", Fates{Record: traces, Replay: traces}, []string{traces}},
		"no trace":         {only, "", Fates{Replay: put("empty")}, []string{"link a-b", "a-b.fates"}},
		"no such traces":   {only, "", Fates{Replay: filepath.Join(dir, "none")}, []string{"link a-b"}},
		"trace too many":   {only, "", Fates{Replay: put("many", "a-b.fates", good, "c-d.fates", good)}, []string{"c-d.fates"}},
		"of another link":  {only, "", Fates{Replay: put("name", "a-b.fates", strings.Replace(good, "link a-b", "link x", 1))}, []string{"a-b.fates:2:", `"x"`}},
		"of other ends":    {only, "", Fates{Replay: put("ends", "a-b.fates", strings.Replace(good, "ends a b", "ends b a", 1))}, []string{"a-b.fates:3:", "b and a"}},
		"of another shape": {only, "", Fates{Replay: put("shape", "a-b.fates", strings.Replace(good, "delay 1ms", "delay 2ms", 1))}, []string{"a-b.fates:5:", "delay 2ms", "delay 1ms"}},
		"no trace at all":  {only, "", Fates{Replay: put("noise", "a-b.fates", "\x00\x01")}, []string{"a-b.fates:1:"}},
		"bad line":         {only, "", Fates{Replay: put("line", "a-b.fates", good+"0 1 98\n")}, []string{"a-b.fates:7:"}},
	} {
		shaper, err := tt.fates.choose(tt.links, tt.want, without())
		var fates *FatesError
		if tt.says == nil {
			if err != nil || shaper.Name() != "wire" {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.As(err, &fates) || shaper != nil {
			t.Errorf("%s: %v, %v", name, shaper, err)
			continue
		}
		for _, word := range tt.says {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q does not say %q", name, err, word)
			}
		}
	}
	if _, err := (Fates{Record: dir}).choose(only, "wier", without()); !errors.Is(err, ErrUnknownShaper) {
		t.Error(err)
	}
	var lacks *UnsupportedError
	for _, k := range []kernel{without("TAP"), without("TAP", "netem")} {
		if _, err := (Fates{Record: dir}).choose(only, "", k); !errors.As(err, &lacks) || strings.Contains(err.Error(), "none") {
			t.Error("without TAPs: ", err)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (w writerFunc) Write(b []byte) (int, error) { return w(b) }

// A disk that is full costs the trace and nothing else, and says so.
func TestSpoolFull(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	dir := t.TempDir()
	s, err := newSpool(filepath.Join(dir, "x.fates"))
	if err != nil {
		t.Fatal(err)
	}
	s.to = full // before anything is written
	for deadline := time.Now().Add(2 * time.Minute); err == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		_, err = s.Write([]byte("text"))
	}
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), s.path) {
		t.Error(err)
	}
	if err := s.commit(); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if _, err := s.Write([]byte("text")); err == nil {
		t.Error("something was written after the end")
	}
}

// A disk that stands still is not waited for, and what waits for it is bounded; one that is only slow gets all in order.
func TestSpoolSlow(t *testing.T) {
	t.Parallel()
	stand := make(chan struct{})
	s := spoolTo(writerFunc(func(b []byte) (int, error) {
		<-stand
		return len(b), nil
	}))
	pieces := 0
	for ; pieces < 10*mostSpooled; pieces++ {
		if _, err := s.Write([]byte("text")); err != nil {
			if !errors.Is(err, errSlowDisk) {
				t.Error(err)
			}
			break
		}
	}
	if pieces < mostSpooled || pieces > mostSpooled+1 { // one is being written
		t.Errorf("%d pieces wait", pieces)
	}
	close(stand)
	s.finish()

	var got, want bytes.Buffer
	s = spoolTo(&got)
	for i := range 50 {
		piece := bytes.Repeat([]byte{byte(i)}, 1000)
		want.Write(piece)
		if _, err := s.Write(piece); err != nil {
			t.Fatal(err)
		}
		clear(piece) // which is the caller's again
	}
	if s.finish(); s.err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes of %d, %v", got.Len(), want.Len(), s.err)
	}
}
