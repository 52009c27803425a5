package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// The files of a Table.
const (
	tableFile       = "esp_sa"
	preferencesFile = "preferences"
)

// TableMark begins every file of a Table.
const TableMark = "# pqlab: "

// ErrForeign says that a file which has the name of one of a Table is not pqlab's.
var ErrForeign = errors.New("holds something that pqlab did not write")

// Table is a directory of settings for Wireshark and tshark, with the keys of SAs: WIRESHARK_CONFIG_DIR names it.
type Table struct {
	dir  string
	made bool // the directory is ours

	mu   sync.Mutex
	file *os.File
	err  error // the first of writing, or of closing
}

// NewTable makes the directory, unless it is there, and in it an empty table, in the place of one that pqlab wrote
// earlier. What is in it only its owner may read.
func NewTable(dir string) (_ *Table, err error) {
	t := &Table{dir: dir}
	if err := os.Mkdir(dir, 0o700); err == nil {
		t.made = true
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("table of SAs: %w", err)
	}
	for _, name := range []string{tableFile, preferencesFile} { // all before any is removed
		if err := ours(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("table of SAs: %w", err)
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("table of SAs: %w", err), t.Discard())
		}
	}()
	if t.file, err = secret(filepath.Join(dir, tableFile)); err != nil {
		return nil, err
	}
	if _, err := t.file.WriteString(TableMark + "keys of ESP SAs; whoever has them reads what the tunnels carried\n"); err != nil {
		return nil, err
	}
	preferences, err := secret(filepath.Join(dir, preferencesFile))
	if err != nil {
		return nil, err
	}
	_, err = preferences.WriteString(TableMark + "what a capture needs to be decrypted\n" +
		"esp.enable_encryption_decode: TRUE\n")
	return t, errors.Join(err, preferences.Close())
}

// ours says why a file may not be replaced.
func ours(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && !bytes.HasPrefix(b, []byte(TableMark)) {
		err = fmt.Errorf("%s: %w", path, ErrForeign)
	}
	return err
}

// secret makes a file that only its owner may read, from the first moment on.
func secret(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Add appends SAs, each as a whole line. The key has the salt behind it, as RFC 4106 section 8.1 has keying material.
// After Close it does nothing.
func (t *Table) Add(sas []SA) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, sa := range sas {
		if t.err != nil || t.file == nil {
			return
		}
		protocol := "IPv4"
		if sa.Dst.Is6() {
			protocol = "IPv6"
		}
		line := fmt.Appendf(nil, "%q,%q,%q,\"0x%08x\",\"AES-GCM with 16 octet ICV [RFC4106]\",\"0x%x%x\",\"NULL\",\"\"\n",
			protocol, sa.Src, sa.Dst, sa.SPI, sa.Key, sa.Salt)
		_, t.err = t.file.Write(line)
		clear(line)
	}
}

// Close completes the table. The error is the first that there was.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file != nil {
		if err := t.file.Close(); t.err == nil {
			t.err = err
		}
		t.file = nil
	}
	if t.err != nil {
		return fmt.Errorf("table of SAs: %w", t.err)
	}
	return nil
}

// Discard removes what NewTable made.
func (t *Table) Discard() error {
	_ = t.Close() // what cannot be written is not wanted
	var errs []error
	for _, name := range []string{tableFile, preferencesFile} {
		if err := os.Remove(filepath.Join(t.dir, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if t.made {
		errs = append(errs, os.Remove(t.dir))
	}
	return errors.Join(errs...)
}
