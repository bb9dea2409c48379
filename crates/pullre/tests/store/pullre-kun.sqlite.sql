CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, PRIMARY KEY (version_num));
INSERT INTO alembic_version VALUES ('0b61c2937e21');
CREATE TABLE commits (
  id INTEGER NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
  sha VARCHAR(40) NOT NULL UNIQUE, message TEXT, parent_a VARCHAR(40), parent_b VARCHAR(40),
  production_reported INTEGER);
INSERT INTO commits VALUES
  (1,'2026-11-22 21:23:49','2026-11-22 21:23:49','cc1b515b91564f06118d0f86287286f5afd3da3a','initial web app',NULL,NULL,0);
CREATE TABLE git_hub_users (
  id INTEGER NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
  login VARCHAR(128) NOT NULL UNIQUE, db_schema TEXT);
INSERT INTO git_hub_users VALUES
  (1,'2026-11-22 21:23:30','2026-11-22 21:23:30','dev1','db_dev1'),
  (2,'2026-11-22 21:23:30','2026-11-22 21:23:30','dev2','db_dev2');
CREATE TABLE hide_servers (
  id INTEGER NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL, name TEXT);
CREATE TABLE issues (
  id INTEGER NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
  number INTEGER NOT NULL UNIQUE, state VARCHAR(10), title TEXT, body TEXT, labels VARCHAR(128),
  assignee VARCHAR(128));
CREATE TABLE next_release_messages (
  id INTEGER NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
  hash VARCHAR(64) NOT NULL UNIQUE, content TEXT);
CREATE TABLE servers (
  id INTEGER NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
  instance_id VARCHAR(100), name TEXT, private_ip VARCHAR(100), db_schema TEXT, check_url TEXT,
  is_staging INTEGER, auto_start_at DATETIME, auto_stop_at DATETIME);
INSERT INTO servers VALUES
  (1,'2026-11-22 21:23:30','2026-11-22 21:23:30','i-b00f85e3830690683','stg1','10.174.151.153','stg1','http://127.0.0.1:18081/',1,NULL,NULL),
  (2,'2026-11-22 21:23:30','2026-11-22 21:23:30','i-8036de5b0167c08c4','stg2','10.194.29.30','stg2','http://127.0.0.1:18082/',1,NULL,NULL);
CREATE TABLE pull_requests (
  id INTEGER NOT NULL PRIMARY KEY, created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
  number INTEGER NOT NULL UNIQUE, state VARCHAR(20), sha VARCHAR(64), title TEXT, body TEXT, ref TEXT,
  server_id BIGINT REFERENCES servers (id), is_launched INTEGER, db_schema TEXT, check_run_id BIGINT);
INSERT INTO pull_requests VALUES
  (1,'2026-11-22 21:23:30','2026-11-22 21:23:35',1,'closed','a18f320b1462576f00e4135b7913b0151f090d4d','Feature 1','b','feat1',2,1,'db_dev1',NULL),
  (2,'2026-11-22 21:23:48','2026-11-22 21:23:48',2,'open','5477f64340bbea341a7bc5cf1305891bf8af3f6c','機能 2 🍣','バグリスク: なし','feat2',2,1,'db_dev2',NULL);
