//! Clients: each has servers of its own, and does to them whatever comes to its mind.

use super::World;
use haneul_testkit::{Answer, Client, Dice};
use http::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// No answer takes so long, whoever dies; a request that is cut off has ended, too.
const ANSWER: Duration = Duration::from_secs(40);
const SERVERS: &str = "/compute/v2.1/servers";
const FLOATING: &str = "/network/v2.0/floatingips";

/// A flavor whose live migrations last until they are forced or aborted.
pub const SLOW: &str = "slow";

/// The path of a server's move.
async fn migration(admin: &Client, server: &str) -> Option<String> {
    let path = format!("{SERVERS}/{server}/migrations");
    let all = admin.try_send(Method::GET, &path, &[], vec![]).await?;
    let id = all.body["migrations"][0]["id"].as_i64()?;
    Some(format!("{path}/{id}"))
}

/// Has a move made an end. Nothing happens when there is none that could.
pub async fn force(admin: &Client, server: &str) -> Option<()> {
    let path = migration(admin, server).await;
    if let Some(path) = path {
        let json = [("content-type", "application/json")];
        let body = json!({"force_complete": null}).to_string().into_bytes();
        admin
            .try_send(Method::POST, &format!("{path}/action"), &json, body)
            .await?;
    }
    Some(())
}

/// What a client knows of one of its servers.
#[derive(Clone, Debug)]
pub struct Mine {
    pub name: String,
    /// None: the create was not answered, so it may be there or not.
    pub id: Option<String>,
    /// Its delete was asked for, and whether that was answered by 204.
    pub delete: Option<bool>,
}

/// What clients may ask for.
#[derive(Clone)]
pub struct Menu {
    pub admin: Client,
    /// The same by another process of control: every other client speaks with that one.
    pub second: Option<Client>,
    /// Body of a create.
    pub create: Value,
    pub image: String,
    /// Network cards of it are plugged and unplugged.
    pub cards: Option<String>,
    /// An external network, floating IPs of which come and go; a router leads there.
    pub outside: String,
    /// There is a flavor whose moves last.
    pub slow: bool,
    /// Servers that a client has at the most.
    pub most: usize,
}

/// See the module.
pub struct Chaotic {
    who: usize,
    menu: Menu,
    world: Arc<World>,
    dice: Dice,
    mine: Vec<Mine>,
    made: usize,
}

impl Chaotic {
    pub fn new(world: &Arc<World>, who: usize, menu: &Menu) -> Chaotic {
        let mut menu = menu.clone();
        if let (1, Some(second)) = (who % 2, &menu.second) {
            menu.admin = second.clone();
        }
        Chaotic {
            who,
            menu,
            world: world.clone(),
            dice: Dice::of(world.seed, 1000 + who as u64),
            mine: vec![],
            made: 0,
        }
    }

    /// Goes on until it is told to stop.
    pub async fn run(mut self, stop: tokio::sync::watch::Receiver<bool>) -> Chaotic {
        while !*stop.borrow() {
            let world = self.world.clone();
            {
                let _open = world.gate.read().await;
                self.act().await;
            }
            let pause = Duration::from_millis(self.dice.range(10, 400)) * world.pace;
            tokio::time::sleep(pause).await;
        }
        self
    }

    /// Servers that are there, as far as it knows.
    pub fn acknowledged(&self) -> impl Iterator<Item = &str> {
        self.mine.iter().filter_map(|m| m.id.as_deref())
    }

    /// One request; what is answered is right for a user, or it is noted.
    async fn ask(&self, method: Method, path: &str, body: Value) -> Option<Answer> {
        let bytes = if body.is_null() {
            vec![]
        } else {
            body.to_string().into_bytes()
        };
        let json = [("content-type", "application/json")];
        let headers: &[(&str, &str)] = if bytes.is_empty() { &[] } else { &json };
        let sent = self.menu.admin.try_send(method.clone(), path, headers, bytes);
        let what = format!("c{} {method} {path} {body}", self.who);
        let Ok(answer) = tokio::time::timeout(ANSWER, sent).await else {
            self.world.wrong(format!("{what}: no answer in {ANSWER:?}"));
            return None;
        };
        let status = answer.as_ref().map_or(0, |a| a.status);
        if method != Method::GET {
            let text = answer
                .as_ref()
                .filter(|a| a.status >= 400)
                .map_or("", |a| a.text.as_str());
            self.world.say(format!("{what} -> {status} {text}"));
        }
        // Not answered at all is what a dead process does; 503 says "try again".
        if status >= 500 && status != 503 {
            let text = answer.as_ref().map_or("", |a| a.text.as_str());
            self.world.wrong(format!("{what}: {status} {text}"));
        }
        answer
    }

    async fn act(&mut self) {
        if !self.mine.is_empty() {
            let at = self.dice.range(0, self.mine.len() as u64) as usize;
            let (create, grow) = (self.mine.len() < self.menu.most, self.dice.range(0, 4) == 0);
            if !(create && grow) {
                return self.act_on(at).await;
            }
        }
        self.made += 1;
        let name = format!("c{}-{}", self.who, self.made);
        let mut body = self.menu.create.clone();
        body["server"]["name"] = name.as_str().into();
        if self.menu.slow && self.dice.range(0, 4) == 0 {
            body["server"]["flavorRef"] = SLOW.into();
        }
        let answer = self.ask(Method::POST, SERVERS, body).await;
        let id = match &answer {
            Some(a) if a.status == 202 => a.body["server"]["id"].as_str().map(str::to_owned),
            // It was refused: there is none.
            Some(_) => return,
            None => None,
        };
        self.world.say(format!("c{} {name} is {id:?}", self.who));
        self.mine.push(Mine { name, id, delete: None });
    }

    /// Finds a server whose create was not answered. Drops it from the list when control says that there is none.
    async fn find(&mut self, at: usize) {
        let path = format!("{SERVERS}?name=%5E{}%24", self.mine[at].name);
        let Some(a) = self
            .ask(Method::GET, &path, Value::Null)
            .await
            .filter(|a| a.status == 200)
        else {
            return;
        };
        match a.body["servers"][0]["id"].as_str() {
            Some(id) => self.mine[at].id = Some(id.to_owned()),
            None => drop(self.mine.remove(at)),
        }
    }

    async fn act_on(&mut self, at: usize) {
        let Some(id) = self.mine[at].id.clone() else {
            return self.find(at).await;
        };
        let path = format!("{SERVERS}/{id}");
        let Some(shown) = self.ask(Method::GET, &path, Value::Null).await else {
            return;
        };
        match (shown.status, self.mine[at].delete) {
            (404, Some(_)) => return drop(self.mine.remove(at)),
            (404, None) => return self.world.wrong(format!("{id} is gone, and nobody deleted it")),
            (200, Some(true)) => return,
            (200, _) => {}
            _ => return,
        }
        let s = &shown.body["server"];
        let busy = s["status"] != "MIGRATING" && !s["OS-EXT-STS:task_state"].is_null();
        if busy && self.dice.range(0, 2 + u64::from(self.world.pace)) > 0 {
            // Mostly it is waited for.
            return;
        }
        let status = s["status"].as_str().unwrap_or_default();
        let slow = s["flavor"]["original_name"] == SLOW;
        let Some(what) = self.choose(status, slow) else {
            self.mine[at].delete.get_or_insert(false);
            let answer = self.ask(Method::DELETE, &path, Value::Null).await;
            if answer.as_ref().is_some_and(|a| a.status == 204) {
                self.mine[at].delete = Some(true);
            }
            return;
        };
        if status == "MIGRATING" {
            return self.end_move(&id).await;
        }
        let interfaces = format!("{path}/os-interface");
        match what {
            "attach" => {
                let body = json!({"interfaceAttachment": {"net_id": self.menu.cards}});
                self.ask(Method::POST, &interfaces, body).await;
            }
            "detach" => {
                if let Some(port) = self.first_port(&interfaces).await {
                    self.ask(Method::DELETE, &format!("{interfaces}/{port}"), Value::Null)
                        .await;
                }
            }
            "float" => {
                if let Some(port) = self.first_port(&interfaces).await {
                    let body = json!({"floatingip": {"floating_network_id": self.menu.outside, "port_id": port}});
                    self.ask(Method::POST, FLOATING, body).await;
                }
            }
            "sink" => {
                if let Some(port) = self.first_port(&interfaces).await {
                    let path = format!("{FLOATING}?port_id={port}");
                    let all = self.ask(Method::GET, &path, Value::Null).await;
                    if let Some(id) = all.and_then(|a| a.body["floatingips"][0]["id"].as_str().map(str::to_owned)) {
                        self.ask(Method::DELETE, &format!("{FLOATING}/{id}"), Value::Null).await;
                    }
                }
            }
            action => {
                let body = action.replace("IMAGE", &self.menu.image);
                let body = serde_json::from_str(&body).expect("an action");
                self.ask(Method::POST, &format!("{path}/action"), body).await;
            }
        }
    }

    async fn first_port(&self, interfaces: &str) -> Option<String> {
        let all = self.ask(Method::GET, interfaces, Value::Null).await?;
        Some(all.body["interfaceAttachments"][0]["port_id"].as_str()?.to_owned())
    }

    /// A move is to end, this way or that.
    async fn end_move(&mut self, server: &str) {
        if self.dice.range(0, 2) == 0 {
            let _ = force(&self.menu.admin, server).await;
            return;
        }
        if let Some(path) = migration(&self.menu.admin, server).await {
            self.ask(Method::DELETE, &path, Value::Null).await;
        }
    }

    /// What is done to a server in this state; none: it is deleted.
    fn choose(&mut self, status: &str, slow: bool) -> Option<&'static str> {
        const LIVE: &str = r#"{"os-migrateLive": {"host": null, "block_migration": "auto"}}"#;
        const COLD: &str = r#"{"migrate": null}"#;
        const SMALL: &str = r#"{"resize": {"flavorRef": "small"}}"#;
        const TINY: &str = r#"{"resize": {"flavorRef": "tiny"}}"#;
        const START: &str = r#"{"os-start": null}"#;
        const REBUILD: &str = r#"{"rebuild": {"imageRef": "IMAGE"}}"#;
        const HARD: &str = r#"{"reboot": {"type": "HARD"}}"#;
        let cards = u64::from(self.menu.cards.is_some());
        let all: &[(u64, Option<&'static str>)] = match status {
            "ACTIVE" => &[
                (6, Some(LIVE)),
                (3, Some(COLD)),
                (2, Some(SMALL)),
                (1, Some(TINY)),
                (2, Some(r#"{"os-stop": null}"#)),
                (1, Some(r#"{"pause": null}"#)),
                (1, Some(r#"{"suspend": null}"#)),
                (1, Some(r#"{"reboot": {"type": "SOFT"}}"#)),
                (1, Some(HARD)),
                (1, Some(REBUILD)),
                (1, Some(r#"{"createImage": {"name": "of a server"}}"#)),
                (cards, Some("attach")),
                (cards, Some("detach")),
                (2, Some("float")),
                (1, Some("sink")),
                (3, None),
            ],
            "SHUTOFF" => &[
                (5, Some(START)),
                (2, Some(COLD)),
                (1, Some(SMALL)),
                (1, Some(REBUILD)),
                (1, None),
            ],
            "PAUSED" => &[(3, Some(r#"{"unpause": null}"#)), (2, Some(LIVE)), (1, None)],
            "SUSPENDED" => &[(4, Some(r#"{"resume": null}"#)), (1, None)],
            "VERIFY_RESIZE" => &[
                (4, Some(r#"{"confirmResize": null}"#)),
                (4, Some(r#"{"revertResize": null}"#)),
                (1, None),
            ],
            "ERROR" => &[(2, Some(HARD)), (1, None)],
            _ => &[(1, Some(HARD)), (2, Some(START)), (2, None)],
        };
        let what = *self.dice.weighted(all);
        // Nobody can end the move of one that is stopped.
        match slow && [COLD, SMALL, TINY].map(Some).contains(&what) {
            true => Some(HARD),
            false => what,
        }
    }

    /// At rest: whatever was acknowledged is there, or is gone.
    pub async fn check(&mut self) {
        let mut at = 0;
        while at < self.mine.len() {
            if self.mine[at].id.is_none() {
                let before = self.mine.len();
                self.find(at).await;
                at += usize::from(before == self.mine.len());
                continue;
            }
            let Mine { id, delete, name } = self.mine[at].clone();
            let id = id.unwrap_or_default();
            let shown = self.ask(Method::GET, &format!("{SERVERS}/{id}"), Value::Null).await;
            match (shown.map_or(0, |a| a.status), delete) {
                (200, None) => {}
                // The delete was lost: it is as before.
                (200, Some(false)) => self.mine[at].delete = None,
                (404, Some(_)) => {
                    self.mine.remove(at);
                    continue;
                }
                (status, delete) => {
                    let what = format!("{name} ({id}) answers {status}, and its delete is {delete:?}");
                    self.world.wrong(what);
                }
            }
            at += 1;
        }
    }

    /// Deletes all that it has.
    pub async fn end(&mut self) {
        for at in 0..self.mine.len() {
            let m = self.mine[at].clone();
            self.mine[at].delete = Some(true);
            let path = format!("{SERVERS}/{}", m.id.as_deref().unwrap_or_default());
            let status = self
                .ask(Method::DELETE, &path, Value::Null)
                .await
                .map_or(0, |a| a.status);
            if status != 204 {
                self.world.wrong(format!("{} cannot be deleted: {status}", m.name));
            }
        }
    }
}
