package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"pqlab/report"
	"pqlab/run"
	"pqlab/suites/testlab"
)

// needTshark skips where it is not installed.
func needTshark(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("tshark"); err != nil {
		t.Skip("no tshark here, so that nothing of ours shows that captures can be decrypted: apt-get install tshark")
	}
}

// tshark gives the fields of the packets of a file that match, with the settings in a directory.
func tshark(t *testing.T, config, file, filter string, fields ...string) (rows [][]string) {
	t.Helper()
	a := []string{"-r", file, "-Y", filter, "-T", "fields", "-E", "separator=|", "-E", "occurrence=l"}
	for _, f := range fields {
		a = append(a, "-e", f)
	}
	c := exec.Command("tshark", a...)
	c.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+config)
	var diagnostics bytes.Buffer
	c.Stderr = &diagnostics
	out, err := c.Output()
	if err != nil || strings.Contains(diagnostics.String(), "WARNING") {
		t.Fatalf("%v: %v\n%s", a, err, &diagnostics)
	}
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), "|"))
	}
	return rows
}

// way is how ESP travels, and who makes it.
type way struct{ dataplane, encapsulation, family string }

func (w way) String() string { return w.dataplane + " " + w.encapsulation + " " + w.family }

// flags make every tunnel go that way.
func (w way) flags() []string {
	return []string{"--dataplane", w.dataplane, "--encapsulation", w.encapsulation, "--family", w.family}
}

// over runs a test for each way, and skips those that this machine has not.
func over(t *testing.T, ways []way, test func(*testing.T, way)) {
	needLabs(t)
	clean(t)
	needTshark(t)
	kernel := found(t, "xfrm policies") && found(t, "esp") && found(t, "nftables")
	for _, w := range ways {
		t.Run(w.String(), func(t *testing.T) {
			if w.dataplane == "xfrm" && !kernel {
				t.Skip("this kernel has no IPsec of its own; pqlab vm --memory 1G -- runs this in one that has")
			}
			test(t, w)
		})
	}
}

// A capture of a lab that is up is decrypted by tshark: what was sent before a rekey and after it, and the exchanges that
// made the keys.
func TestCaptureDecrypted(t *testing.T) {
	over(t, []way{
		{"gateway", "udp", "ipv4"}, {"gateway", "udp", "ipv6"}, {"gateway", "esp", "ipv4"}, {"gateway", "esp", "ipv6"},
		{"xfrm", "udp", "ipv4"}, {"xfrm", "udp", "ipv6"}, {"xfrm", "esp", "ipv4"}, {"xfrm", "esp", "ipv6"},
	}, captureDecrypted)
}

func captureDecrypted(t *testing.T, w way) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "pair.pcapng"), filepath.Join(dir, "other.pcapng")
	config := run.TableOf(file)
	lab := upLab(t, append([]string{"pair"}, w.flags()...)...)
	c := command(t, "capture", lab, "-o", file, "--export-keys", "--rekey", "--json")
	var out, diagnostics bytes.Buffer
	c.Stdout, c.Stderr = &out, &diagnostics
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	starts(t, file)

	var payloads []string
	for i := range 2 {
		if i > 0 { // another capture's rekey
			if r := pqlab(t, "capture", lab, "-o", other, "--rekey", "--count", "20", "--tls-secrets=false"); r.code != exitOK {
				t.Fatalf("%d: %s", r.code, r.err)
			}
		}
		until(t, "a rekey", func() bool { return rekeys(t, lab) == uint64(i+1) })
		payload := fmt.Sprintf("payload-%d-%s", i, rand.Text())
		send(t, lab, payload)
		payloads = append(payloads, payload)
	}
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatalf("%v: %s", err, &diagnostics)
	}
	r := parse[run.Record](t, out.String())
	if r.Ended != "interrupted" || r.Links != 1 || r.Ends != 2 || r.Sessions != 2 || r.SAs != 4 || r.Dropped != 0 ||
		!slices.Equal(r.Files, []string{file}) || r.Table != config {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{file, filepath.Join(config, "esp_sa")} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	opened := openESP(t, raw, config)
	withoutKeys(t, config, file, other)

	var spis []string
	esp := tshark(t, config, file, "esp && udp.dstport == 9 && !icmp && !icmpv6", "frame.interface_name", "esp.spi", "ip.src", "data.data", "ip.proto", "ipv6.nxt")
	for i, p := range payloads {
		if bytes.Contains(raw, []byte(p)) {
			t.Error("a payload is in the file in the clear")
		}
		if !slices.ContainsFunc(opened, func(inner []byte) bool { return bytes.HasSuffix(inner, []byte(p)) }) {
			t.Errorf("payload %d cannot be opened with the table's keys", i)
		}
		rows := slices.DeleteFunc(slices.Clone(esp), func(row []string) bool { return row[3] != hex.EncodeToString([]byte(p)) })
		if r.Unordered > 0 {
			slices.SortFunc(rows, slices.Compare)
		}
		if len(rows) != 2 || rows[0][0] != "a:fib0" || rows[1][0] != "b:fib0" || rows[0][1] != rows[1][1] || rows[0][2] != "10.255.0.1" {
			t.Fatalf("payload %d: tshark finds %q among %q", i, rows, esp)
		}
		if v6 := rows[0][5] != ""; v6 != (w.family == "ipv6") {
			t.Errorf("payload %d: outside is IPv6: %v", i, v6)
		}
		spis = append(spis, rows[0][1])
	}
	if spis[0] == spis[1] {
		t.Errorf("both under SA %s", spis[0])
	}

	// The exchanges, which need no settings: five messages of each, and the first names the tunnel. What is in ESP needs some.
	nowhere := t.TempDir() // settings of nobody
	messages := map[string][]string{}
	for _, row := range tshark(t, nowhere, file, "tls && data || udp.dstport == 9", "tcp.stream", "data.data") {
		if row[0] == "" {
			t.Errorf("tshark needs no keys: %q", row)
		}
		messages[row[0]] = append(messages[row[0]], row[1])
	}
	if r.Unordered > 0 { // tshark follows no stream that is out of order
		t.Logf("%d packets are out of order: what tshark makes of the exchanges is not looked at", r.Unordered)
		messages = nil
	} else if len(messages) != 2 {
		t.Errorf("%d exchanges are decrypted, want 2", len(messages))
	}
	for stream, all := range messages {
		var kinds string
		for _, m := range all {
			kinds += m[:2]
		}
		if kinds != "0102030405" || !strings.Contains(all[0], hex.EncodeToString([]byte("ab"))) || !strings.Contains(all[0], hex.EncodeToString([]byte("demand"))) {
			t.Errorf("exchange %s: messages %s", stream, kinds)
		}
	}
	if rows := tshark(t, nowhere, other, "tls && data", "frame.number"); len(rows) != 0 {
		t.Errorf("TLS is decrypted without secrets: %q", rows)
	}

	// Where keys change, a comment says so: at one packet for each SA that was used.
	var comments []string
	for _, row := range tshark(t, config, file, "frame.comment", "frame.comment", "esp.spi") {
		if !strings.Contains(row[0], "rekeyed") || !strings.Contains(row[0], row[1]) {
			t.Errorf("comment %q at a packet under %s", row[0], row[1])
		}
		comments = append(comments, row[1])
	}
	for _, spi := range spis {
		if !slices.Contains(comments, spi) {
			t.Errorf("no comment on %s, but on %q", spi, comments)
		}
	}
}

// withoutKeys looks for every key of a table in captures of the packets under it, however it might be written.
func withoutKeys(t *testing.T, config string, files ...string) {
	t.Helper()
	table, err := os.ReadFile(filepath.Join(config, "esp_sa"))
	if err != nil {
		t.Fatal(err)
	}
	keys := 0
	for line := range strings.Lines(string(table)) {
		m := saLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			continue
		}
		keys++
		key, err := hex.DecodeString(m[4])
		if err != nil {
			t.Fatal(err)
		}
		if !holds(table, key) {
			t.Fatal("a key is not found where it is")
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if holds(b, key) {
				t.Errorf("%s has the key of SA 0x%s", file, m[3])
			}
		}
	}
	if keys == 0 {
		t.Error("no key to look for")
	}
}

// holds says whether a file has a key, or a part of it that is none by chance, as it is or written in text.
func holds(file, key []byte) bool {
	lower := bytes.ToLower(file)
	for at := 0; at+16 <= len(key); at += 8 {
		part := key[at : at+16]
		if bytes.Contains(file, part) || bytes.Contains(lower, []byte(hex.EncodeToString(part))) {
			return true
		}
	}
	for shift := range 3 { // where in three bytes the key might begin
		text := base64.StdEncoding.EncodeToString(append(make([]byte, shift), key...))[4:40]
		if bytes.Contains(file, []byte(text)) || bytes.Contains(file, []byte(strings.NewReplacer("+", "-", "/", "_").Replace(text))) {
			return true
		}
	}
	return false
}

var saLine = regexp.MustCompile(`^"IPv[46]","([^"]+)","([^"]+)","0x([0-9a-f]{8})","AES-GCM with 16 octet ICV \[RFC4106\]","0x([0-9a-f]{64})([0-9a-f]{8})","NULL",""$`)

// openESP decrypts every ESP packet of a file for which a table has the keys, and authenticates it with its extended
// sequence number, which tshark 4.0 cannot. It gives the inner packets.
func openESP(t *testing.T, file []byte, config string) (inner [][]byte) {
	t.Helper()
	table, err := os.ReadFile(filepath.Join(config, "esp_sa"))
	if err != nil {
		t.Fatal(err)
	}
	type sa struct {
		aead cipher.AEAD
		salt []byte
	}
	sas := map[string]sa{} // by destination and SPI
	for line := range strings.Lines(string(table)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		m := saLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Fatalf("a line of %d bytes is no SA", len(line))
		}
		key, _ := hex.DecodeString(m[4])
		salt, _ := hex.DecodeString(m[5])
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		sas[m[2]+m[3]] = sa{aead, salt}
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, _, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return inner
		}
		if err != nil {
			t.Fatal(err)
		}
		p := gopacket.NewPacket(data, layers.LinkTypeEthernet, gopacket.NoCopy)
		_, esp, ok := testlab.ESP(p)
		if !ok {
			continue
		}
		k, ok := sas[p.NetworkLayer().NetworkFlow().Dst().String()+hex.EncodeToString(esp[:4])]
		if !ok {
			continue
		}
		aad := slices.Concat(esp[:4], make([]byte, 4), esp[4:8]) // the high half is 0 for the first 2^32 packets
		plain, err := k.aead.Open(nil, slices.Concat(k.salt, esp[8:16]), esp[16:], aad)
		if err != nil {
			t.Fatalf("packet %d under SA %x: %v", binary.BigEndian.Uint32(esp[4:]), esp[:4], err)
		}
		inner = append(inner, plain[:len(plain)-2-int(plain[len(plain)-2])])
	}
}

// The capture of a run, with the load of a run: tshark decrypts every ESP packet, and each end's view is there.
func TestRunCaptureDecrypted(t *testing.T) {
	over(t, []way{{"gateway", "udp", "ipv4"}, {"gateway", "esp", "ipv6"}, {"xfrm", "udp", "ipv6"}, {"xfrm", "esp", "ipv4"}}, runCaptureDecrypted)
}

func runCaptureDecrypted(t *testing.T, w way) {
	dir := filepath.Join(t.TempDir(), "captures")
	lab := write(t, `
name: loaded
nodes: [{name: a, kind: host}, {name: b, kind: host}]
links: [{name: a-b, kind: fibre, a: a, b: b}]
tunnels: [{name: ab, a: a, b: b, suite: mldsa44+mlkem512, rekey: {packets: 300}}]
traffic: # worth one rekey, and never twice as many packets on an SA, which would be too late
  - {from: a, to: b, proto: udp, rate: 2Mbit/s, frame_size: 800, duration: 1600ms}
  - {from: a, to: b, proto: tcp, rate: 4Mbit/s, duration: 100ms}
`)
	r := pqlab(t, append([]string{"run", lab, "--capture", dir, "--export-keys", "--json"}, w.flags()...)...)
	if r.code != exitOK {
		t.Fatalf("%d: %s", r.code, r.err)
	}
	result := parse[report.Result](t, r.out)
	if len(result.Rekeys) == 0 || len(result.Captures) != 1 {
		t.Fatalf("%d rekeys, captures %+v", len(result.Rekeys), result.Captures)
	}
	file, config := result.Captures[0].File, filepath.Join(dir, "wireshark")
	for _, path := range []string{file, filepath.Join(config, "esp_sa")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", path, err)
		}
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	withoutKeys(t, config, file)
	udp := slices.IndexFunc(result.Traffic, func(f report.Flow) bool { return f.Proto == "udp" })
	if udp < 0 || result.Traffic[udp].Received == 0 || result.Captures[0].Dropped > 0 {
		t.Fatalf("traffic %+v, captures %+v", result.Traffic, result.Captures)
	}
	all, arrived := tshark(t, config, file, "esp", "frame.number"), int(result.Traffic[udp].Received)
	if opened := len(openESP(t, raw, config)); len(all) <= 2*arrived || opened != len(all) {
		t.Errorf("%d ESP packets for %d of UDP and those of TCP, seen twice, of which the keys open %d", len(all), arrived, opened)
	}
	if rows := tshark(t, config, file, "esp && !(esp.protocol == 4)", "frame.number"); len(rows) != 0 {
		t.Errorf("%d of %d ESP packets are not decrypted", len(rows), len(all))
	}
	// What the kernel hands over too late is out of its place, and told.
	unordered := slices.ContainsFunc(result.Warnings, func(w string) bool { return strings.Contains(w, "out of order") })
	perSPI := map[string]bool{}
	last := 0.0
	for _, row := range tshark(t, config, file, "frame", "frame.time_epoch", "esp.spi") {
		at, err := strconv.ParseFloat(row[0], 64)
		if err != nil || at < last && !unordered {
			t.Fatalf("%s after %f: %v", row[0], last, err)
		}
		last = at
		perSPI[row[1]] = true
	}
	if len(perSPI) < 3 {
		t.Errorf("SPIs %v", perSPI)
	}
}

// Without being asked by name a run keeps no key, and without being asked not to, it has what decrypts TLS.
func TestRunCaptureSecrets(t *testing.T) {
	over(t, []way{{"gateway", "udp", "ipv4"}}, func(t *testing.T, w way) {
		dir := filepath.Join(t.TempDir(), "captures")
		for _, flags := range [][]string{nil, {"--tls-secrets=false"}} {
			a := append([]string{"run", "pair", "--duration", "10ms", "--capture", dir}, w.flags()...)
			if r := pqlab(t, append(a, flags...)...); r.code != exitOK {
				t.Fatalf("%d: %s", r.code, r.err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("%v, %v", entries, err)
			}
			rows := tshark(t, t.TempDir(), filepath.Join(dir, "a-b.pcapng"), "tls && data", "frame.number")
			if (len(rows) > 0) != (flags == nil) {
				t.Errorf("%v: %d messages are decrypted", flags, len(rows))
			}
		}
	})
}

// The commands that the document on captures begins with do what it says, as they stand.
func TestCaptureDocument(t *testing.T) {
	needLabs(t)
	clean(t)
	needTshark(t)
	text, err := os.ReadFile("../../docs/captures.md")
	if err != nil {
		t.Fatal(err)
	}
	var commands strings.Builder
	for line := range strings.Lines(string(text)) {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			commands.WriteString(code)
		} else if commands.Len() > 0 {
			break
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin, dir, labs := t.TempDir(), t.TempDir(), t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "pqlab")); err != nil {
		t.Fatal(err)
	}
	environment := append(os.Environ(), mark+"=1", "GORACE=atexit_sleep_ms=0",
		"PATH="+bin+":"+os.Getenv("PATH"), "XDG_RUNTIME_DIR="+labs) // where nobody has a lab of that name
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "bash", "-e", "-c", commands.String())
	c.WaitDelay = time.Minute
	var out, diagnostics bytes.Buffer
	c.Dir, c.Env, c.Stdout, c.Stderr = dir, environment, &out, &diagnostics
	if err := c.Run(); err != nil {
		down := exec.Command(self, "down", "pair")
		down.Env = environment
		t.Logf("down: %v", down.Run())
		t.Fatalf("%v\n%s\n%s%s", err, &commands, &out, &diagnostics)
	}
	file, config := filepath.Join(dir, "pair.pcapng"), filepath.Join(dir, "pair.wireshark")
	if raw, err := os.ReadFile(file); err != nil || bytes.Contains(raw, []byte("hello")) {
		t.Errorf("not sent through the tunnel, or %v", err)
	}
	hello := tshark(t, config, file, "esp && udp.dstport == 9 && !icmp", "ip.src", "ip.dst", "data.data")
	if len(hello) == 0 || !slices.Equal(hello[0], []string{"10.255.0.1", "10.255.0.2", hex.EncodeToString([]byte("hello\n"))}) {
		t.Errorf("decrypted: %q", hello)
	}
	if rows := tshark(t, config, file, "tls && data", "frame.number"); len(rows) == 0 {
		t.Error("no message of an exchange is decrypted")
	}
	// Packets as the commands show them have inner addresses, which nobody sees who cannot decrypt.
	if !strings.Contains(out.String(), "10.255.0.2") {
		t.Errorf("the commands show nothing decrypted:\n%s", &out)
	}
}
