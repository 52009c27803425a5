package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
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
	"pqlab/supervisor"
)

// tshark gives the fields of the packets of a file that match, with the settings in a directory.
func tshark(t *testing.T, config, file, filter string, fields ...string) (rows [][]string) {
	t.Helper()
	path, err := exec.LookPath("tshark")
	if err != nil {
		t.Skip("no tshark here, so that nothing of ours shows that captures can be decrypted: apt-get install tshark")
	}
	a := []string{"-r", file, "-Y", filter, "-T", "fields", "-E", "separator=|", "-E", "occurrence=l"}
	for _, f := range fields {
		a = append(a, "-e", f)
	}
	c := exec.Command(path, a...)
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

// upLab makes a lab that is down again after the test.
func upLab(t *testing.T, args ...string) (name string) {
	t.Helper()
	name = fmt.Sprintf("cap-%d-%d", os.Getpid(), time.Now().UnixNano()%1e6)
	if r := pqlab(t, append([]string{"up", "--name", name}, args...)...); r.code != exitOK {
		t.Fatalf("up: %d, %s", r.code, r.err)
	}
	t.Cleanup(func() {
		c := exec.Command("/proc/self/exe", "down", name) // the test's context has ended
		c.Env = append(os.Environ(), mark+"=1")
		if out, err := c.CombinedOutput(); err != nil && c.ProcessState.ExitCode() != exitUsage { // that: it is down
			t.Errorf("down: %v: %s", err, out)
		}
	})
	return name
}

// send sends a datagram from a node of the pair through its tunnel; nobody listens.
func send(t *testing.T, lab, payload string) {
	t.Helper()
	if r := pqlab(t, "exec", lab, "a", "--", "bash", "-c", "printf %s "+payload+" >/dev/udp/10.255.0.2/9"); r.code != 0 {
		t.Fatalf("sending: %s", r.err)
	}
}

// rekeys counts those of a lab's tunnel.
func rekeys(t *testing.T, lab string) uint64 {
	t.Helper()
	return parse[supervisor.Status](t, pqlab(t, "ps", lab, "--json").out).Tunnels[0].Rekeys
}

// starts waits for the file of a capture, which has its place when the capture has begun.
func starts(t *testing.T, file string) {
	t.Helper()
	until(t, "the capture begins", func() bool { _, err := os.Stat(file); return err == nil })
}

// A capture of a lab that is up is decrypted by tshark: what was sent before a rekey and after it, and the exchanges that
// made the keys.
func TestCaptureDecrypted(t *testing.T) {
	needLabs(t)
	clean(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "pair.pcapng")
	config := run.TableOf(file)
	lab := upLab(t, "pair", "--dataplane", "gateway")
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
			if r := pqlab(t, "capture", lab, "-o", filepath.Join(dir, "other.pcapng"), "--rekey", "--count", "20", "--tls-secrets=false"); r.code != exitOK {
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

	nowhere := t.TempDir() // settings of nobody
	var spis []string
	for i, p := range payloads {
		if bytes.Contains(raw, []byte(p)) {
			t.Error("a payload is in the file in the clear")
		}
		if !slices.ContainsFunc(opened, func(inner []byte) bool { return bytes.HasSuffix(inner, []byte(p)) }) {
			t.Errorf("payload %d cannot be opened with the table's keys", i)
		}
		filter := "esp && udp.dstport == 9 && !icmp && data.data == " + colons(p)
		rows := tshark(t, config, file, filter, "frame.interface_name", "esp.spi", "ip.src", "data.data")
		if r.Unordered > 0 {
			slices.SortFunc(rows, slices.Compare)
		}
		if len(rows) != 2 || rows[0][0] != "a:fib0" || rows[1][0] != "b:fib0" || rows[0][1] != rows[1][1] || rows[0][2] != "10.255.0.1" || rows[0][3] != hex.EncodeToString([]byte(p)) {
			t.Fatalf("payload %d: tshark finds %q", i, rows)
		}
		spis = append(spis, rows[0][1])
		if rows := tshark(t, nowhere, file, "udp.dstport == 9", "frame.number"); len(rows) != 0 {
			t.Errorf("tshark needs no keys: %q", rows)
		}
	}
	if spis[0] == spis[1] {
		t.Errorf("both under SA %s", spis[0])
	}

	// The exchanges, which need no settings: five messages of each, and the first names the tunnel.
	messages := map[string][]string{}
	for _, row := range tshark(t, nowhere, file, "tls && data", "tcp.stream", "data.data") {
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
	if rows := tshark(t, nowhere, filepath.Join(dir, "other.pcapng"), "tls && data", "frame.number"); len(rows) != 0 {
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

// colons writes bytes as a display filter has them.
func colons(s string) string {
	var parts []string
	for _, b := range []byte(s) {
		parts = append(parts, fmt.Sprintf("%02x", b))
	}
	return strings.Join(parts, ":")
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
		udp, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if !ok || udp.DstPort != 4500 || udp.SrcPort != 4500 {
			continue
		}
		esp := udp.Payload
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
	needLabs(t)
	clean(t)
	dir := filepath.Join(t.TempDir(), "captures")
	lab := write(t, `
name: loaded
nodes: [{name: a, kind: host}, {name: b, kind: host}]
links: [{name: a-b, kind: fibre, a: a, b: b}]
tunnels: [{name: ab, a: a, b: b, dataplane: gateway, rekey: {packets: 300}}]
traffic:
  - {from: a, to: b, proto: udp, rate: 4Mbit/s, frame_size: 800, duration: 1600ms}
  - {from: a, to: b, proto: tcp, rate: 4Mbit/s, duration: 100ms}
`)
	r := pqlab(t, "run", lab, "--capture", dir, "--export-keys", "--json")
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

	// Without being asked by name no key is kept, and without being asked not to, TLS is decrypted.
	plain := filepath.Join(t.TempDir(), "captures")
	for _, flags := range [][]string{nil, {"--tls-secrets=false"}} {
		if r := pqlab(t, append([]string{"run", "pair", "--dataplane", "gateway", "--duration", "10ms", "--capture", plain}, flags...)...); r.code != exitOK {
			t.Fatalf("%d: %s", r.code, r.err)
		}
		if entries, err := os.ReadDir(plain); err != nil || len(entries) != 1 {
			t.Errorf("%v, %v", entries, err)
		}
		rows := tshark(t, t.TempDir(), filepath.Join(plain, "a-b.pcapng"), "tls && data", "frame.number")
		if (len(rows) > 0) != (flags == nil) {
			t.Errorf("%v: %d messages are decrypted", flags, len(rows))
		}
	}
}

// A capture in a pipe, and one that ends with its lab.
func TestCapturePipe(t *testing.T) {
	needLabs(t)
	clean(t)
	lab := upLab(t, "pair")
	r := pqlab(t, "capture", lab, "a-b", "-o", "-", "--rekey", "--count", "24")
	if r.code != exitOK {
		t.Fatalf("%d: %s", r.code, r.err)
	}
	file, err := pcapgo.NewNgReader(strings.NewReader(r.out), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; ; n++ {
		if _, _, err := file.ReadPacketData(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n != 24 || !strings.Contains(file.SectionInfo().Comment, "topology pair") || file.NInterfaces() != 2 {
		t.Errorf("%d packets, %d interfaces, %q", n, file.NInterfaces(), file.SectionInfo().Comment)
	}

	path := filepath.Join(t.TempDir(), "x.pcapng")
	c := command(t, "capture", lab, "-o", path, "--json")
	var out, diagnostics bytes.Buffer
	c.Stdout, c.Stderr = &out, &diagnostics
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	starts(t, path)
	if r := pqlab(t, "down", lab); r.code != exitOK {
		t.Errorf("down: %s", r.err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v: %s", err, &diagnostics)
	}
	if got := parse[run.Record](t, out.String()); got.Ended != "lab is down" {
		t.Errorf("%+v", got)
	}
}

// What cannot be captured is told, and leaves nothing.
func TestCaptureRefused(t *testing.T) {
	needLabs(t)
	clean(t)
	lab := upLab(t, "pair")
	dir := t.TempDir()
	file := filepath.Join(dir, "x.pcapng")
	if err := os.Mkdir(filepath.Join(dir, "x.wireshark"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.wireshark", "preferences"), []byte("somebody's"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		code int
		args []string
	}{
		{exitUsage, []string{"no-such-lab"}},
		{exitUsage, []string{lab, "no-such-link"}},
		{exitUsage, []string{lab, "--files", "3"}},
		{exitUsage, []string{lab, "--files", "1", "--size", "1MB"}},
		{exitUsage, []string{lab, "--size", "10"}},
		{exitUsage, []string{lab, "--duration", "-1s"}},
		{exitUsage, []string{lab, "--snaplen", "-1"}},
		{exitUsage, []string{lab, "--count", "0"}},
		{exitUsage, []string{lab, "-o", "-", "--export-keys"}},
		{exitUsage, []string{lab, "-o", "-", "--json"}},
		{exitFailed, []string{lab, "--export-keys"}}, // the directory of the keys is somebody's
		{exitFailed, []string{lab, "-o", filepath.Join(dir, "no", "x.pcapng")}},
		{exitFailed, []string{lab, "-o", dir}},
		{exitUsage, nil},
	} {
		a := append([]string{"capture"}, tt.args...)
		if !slices.Contains(a, "-o") && len(tt.args) > 0 {
			a = append(a, "-o", file)
		}
		if r := pqlab(t, a...); r.code != tt.code || r.err == "" || r.out != "" {
			t.Errorf("%q: %d, want %d: %s%s", tt.args, r.code, tt.code, r.out, r.err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
			t.Errorf("%q: %v, %v", tt.args, entries, err)
		}
	}
	if r := pqlab(t, "run", "pair", "--export-keys"); r.code != exitUsage {
		t.Errorf("keys of no capture: %d", r.code)
	}
	if n := rekeys(t, lab); n != 0 {
		t.Errorf("%d rekeys for captures that never began", n)
	}
}
